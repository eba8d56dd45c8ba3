// Marks with labels on a response: by selecting text, or by keys word by word. Offsets count code points.

import { h, isolated, keyButton, toCodePoints, toUnits } from "../static/dom.js";

export function create({ settings, task, position, value, change }) {
  const text = task.responses[position];
  const words = [...text.matchAll(/\S+/g)].map((match) => [match.index, match.index + match[0].length]);
  let spans = value ?? [];
  let cursor = 0;
  let anchor = 0;
  const box = h("p", { class: "text marking", dir: "auto", tabindex: "0", role: "group", "aria-label": "Response, to mark: arrow keys move by words, Shift extends" });
  const list = h("ul", { class: "plain" });
  const live = h("p", { class: "label", role: "status" });
  const goodness = Object.fromEntries(settings.labels.map(({ name, value }) => [name, value > 0 ? "good" : ""]));

  function draw() {
    const edges = new Set([0, text.length]);
    const marks = spans.map((span) => ({ ...span, from: toUnits(text, span.start), to: toUnits(text, span.end) }));
    for (const { from, to } of marks) edges.add(from).add(to);
    const [low, high] = wordRange();
    if (document.activeElement === box) edges.add(low).add(high);
    const points = [...edges].sort((a, b) => a - b);
    box.replaceChildren(
      ...points.slice(0, -1).map((from, i) => {
        const to = points[i + 1];
        const mark = marks.find((other) => other.from <= from && other.to >= to);
        const isCursor = document.activeElement === box && from >= low && to <= high;
        const part = text.slice(from, to);
        if (!mark && !isCursor) return part;
        return h(mark ? "mark" : "span", { class: `${mark ? goodness[mark.label] : ""} ${isCursor ? "word cursor" : ""}`, title: mark?.label }, part);
      }),
    );
    list.replaceChildren(...spans.map((span, i) => h("li", {}, isolated(span.label), ": “", isolated(text.slice(toUnits(text, span.start), toUnits(text, span.end)).slice(0, 60)), "” ", h("button", { type: "button", onclick: () => remove(i), "aria-label": `Remove mark ${i + 1}` }, "Remove"))));
  }
  function wordRange() {
    if (!words.length) return [0, text.length];
    return [words[Math.min(anchor, cursor)][0], words[Math.max(anchor, cursor)][1]];
  }
  function selectionRange() {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed || !box.contains(selection.anchorNode) || !box.contains(selection.focusNode)) return null;
    const range = selection.getRangeAt(0);
    const before = document.createRange();
    before.selectNodeContents(box);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    return [start, start + range.toString().length];
  }
  function mark(label) {
    const range = selectionRange() ?? (document.activeElement === box ? wordRange() : null);
    if (!range || range[0] >= range[1]) {
      live.textContent = "Select a part of the response first, or go to it with Tab and the arrow keys.";
      return;
    }
    const span = { start: toCodePoints(text, range[0]), end: toCodePoints(text, range[1]), label };
    spans = [...spans.filter((other) => other.start !== span.start || other.end !== span.end), span].sort((a, b) => a.start - b.start || a.end - b.end);
    getSelection().removeAllRanges();
    live.textContent = `Marked as ${label}: “${text.slice(...range).slice(0, 60)}”`;
    update();
  }
  function remove(i) {
    spans = spans.filter((_, other) => other !== i);
    update();
  }
  function update() {
    change(spans);
    draw();
  }
  box.addEventListener("keydown", (event) => {
    const next = getComputedStyle(box).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const move = event.key === next ? 1 : ["ArrowLeft", "ArrowRight"].includes(event.key) ? -1 : 0;
    if (!move || !words.length) return;
    event.preventDefault();
    event.stopPropagation();
    cursor = Math.min(Math.max(cursor + move, 0), words.length - 1);
    if (!event.shiftKey) anchor = cursor;
    live.textContent = text.slice(...wordRange()).slice(0, 60);
    draw();
  });
  box.addEventListener("focus", draw);
  box.addEventListener("blur", draw);
  const buttons = settings.labels.map(({ name }, i) => keyButton(name, String(i + 1), () => mark(name), { onmousedown: (event) => event.preventDefault() }));
  const keys = settings.labels.map(({ name }, i) => ({ key: String(i + 1), label: `mark as ${name}`, run: () => mark(name) }));
  keys.push({ key: "Backspace", label: "remove the last mark", run: () => remove(spans.length - 1) });
  draw();
  return { element: h("div", {}, h("p", { class: "label" }, "Select a part, or go word by word with ← → (Shift extends); then choose a label."), box, h("div", { class: "choices" }, ...buttons), live, list), keys, focus: box, usesArrows: true, showsResponse: true, initial: [] };
}
