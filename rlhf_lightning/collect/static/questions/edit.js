// The response as an editable text, with the changed words below. The comparison is for the eye; the server stores the text.

import { h } from "../static/dom.js";

const MAX_CELLS = 4_000_000;

export function create({ settings, task, position, value, change }) {
  const original = task.responses[position];
  // A text area has \n where the response may have \r\n or \r.
  const lineEnd = original.match(/\r\n?/)?.[0] ?? "\n";
  const edited = () => area.value.replaceAll("\n", lineEnd);
  const area = h("textarea", { "aria-labelledby": "question-title", maxlength: Math.max(settings.max_characters, original.length), dir: "auto" });
  area.value = value ?? original;
  const diff = h("div", { class: "diff", dir: "auto", role: "region", "aria-label": "Changes", tabindex: "0" });
  const draw = () => diff.replaceChildren(...words(original, edited()));
  let composing = false;
  const update = () => {
    change(edited());
    if (!composing) draw();
  };
  area.addEventListener("compositionstart", () => (composing = true));
  area.addEventListener("compositionend", () => {
    composing = false;
    update();
  });
  area.addEventListener("input", update);
  const reset = h("button", { type: "button", onclick: () => ((area.value = original), update()) }, "Start again from the response");
  draw();
  const problem = () => (area.value.trim() ? "" : "The text is blank. Skip the item if it can't be corrected.");
  return { element: h("div", {}, area, diff, h("div", { class: "send" }, reset, h("span", { class: "label" }, "Escape leaves the field: then the keys of the buttons work."))), keys: [], focus: area, problem, initial: original };
}

/** Text nodes, <del> and <ins> of the words by which two texts differ (longest common subsequence). */
function words(before, after) {
  if (before === after) return ["No change: the response is approved as it is."];
  const a = before.match(/\s+|[^\s]+/g) ?? [];
  const b = after.match(/\s+|[^\s]+/g) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const x = a.slice(start, a.length - end);
  const y = b.slice(start, b.length - end);
  const changed = x.length * y.length > MAX_CELLS ? [["del", x.join("")], ["ins", y.join("")]] : align(x, y);
  const parts = [["", a.slice(0, start).join("")], ...changed, ["", a.slice(a.length - end).join("")]];
  return parts.filter(([, text]) => text).map(([tag, text]) => (tag ? h(tag, {}, text) : text));
}

function align(x, y) {
  const lengths = Array.from({ length: x.length + 1 }, () => new Uint32Array(y.length + 1));
  for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) lengths[i][j] = x[i] === y[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const parts = [];
  const add = (tag, word) => (parts.length && parts.at(-1)[0] === tag ? (parts.at(-1)[1] += word) : parts.push([tag, word]));
  let i = 0;
  let j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) add("", x[i++]), j++;
    else if (j >= y.length || (i < x.length && lengths[i + 1][j] >= lengths[i][j + 1])) add("del", x[i++]);
    else add("ins", y[j++]);
  }
  return parts;
}
