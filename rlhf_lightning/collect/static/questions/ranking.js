// An order of the responses: press their numbers from best to worst, drag them, or move them by buttons.

import { h, keyButton, letter } from "../static/dom.js";

const DRAG_THRESHOLD = 8;
const EDGE = 48;

export function create({ settings, task, value, change, done }) {
  const count = task.responses.length;
  // order: display positions from best to worst; tied[i]: equal to the one before.
  let order = [];
  let tied = [];
  let tieNext = false;
  if (value) {
    order = value.map((_, position) => position).sort((a, b) => value[a] - value[b] || a - b);
    tied = order.map((position, i) => i > 0 && value[position] === value[order[i - 1]]);
  }
  const list = h("ol", { class: "ranking", "aria-label": "Order, the best first" });
  const rest = h("div", { class: "choices", role: "group", "aria-label": "Not ordered yet" });
  const live = h("p", { class: "label", role: "status" });

  function ranks() {
    const result = Array(count).fill(0);
    let rank = 0;
    order.forEach((position, i) => (result[position] = tied[i] && i > 0 ? rank : ++rank));
    return result;
  }
  function update(text = "") {
    tied = tied.map((tie, i) => tie && i > 0);
    change(order.length === count ? ranks() : null);
    live.textContent = text;
    draw();
  }
  function place(position, isKey = false) {
    if (order.includes(position)) return;
    order.push(position);
    tied.push(tieNext && order.length > 1);
    tieNext = false;
    if (order.length === count - 1) {
      order.push(task.responses.findIndex((_, i) => !order.includes(i)));
      tied.push(false);
    }
    update(`${letter(position)} is number ${ranks()[position]}`);
    if (order.length === count && !isKey) list.querySelector("button")?.focus();
  }
  function tieKey() {
    if (!settings.ties) return;
    if (order.length === count) toggleTie(count - 1);
    else if (order.length) {
      tieNext = !tieNext;
      live.textContent = tieNext ? "The next one is equal to the last" : "";
      draw();
    }
  }
  function toggleTie(i) {
    tied[i] = !tied[i];
    update(tied[i] ? `${letter(order[i])} is equal to ${letter(order[i - 1])}` : `${letter(order[i])} is below ${letter(order[i - 1])}`);
  }
  function move(from, to, focus) {
    if (to < 0 || to >= order.length) return;
    const [position] = order.splice(from, 1);
    tied.splice(from, 1);
    order.splice(to, 0, position);
    tied.splice(to, 0, false);
    update(`${letter(position)} is at place ${to + 1}`);
    if (focus) list.querySelector(`[data-position="${position}"] .${focus}`)?.focus();
  }
  function removeLast() {
    order.pop();
    tied.pop();
    update("");
  }
  function row(position, i) {
    const handle = h("span", { class: "handle", "aria-hidden": "true" }, "⠿");
    handle.addEventListener("pointerdown", (event) => drag(event, position));
    return h(
      "li",
      { "data-position": position },
      handle,
      h("strong", {}, `${ranks()[position]}. ${letter(position)}`),
      h("span", { class: "excerpt", dir: "auto" }, task.responses[position].slice(0, 120)),
      keyButton("↑", null, () => move(i, i - 1, "up"), { class: "up", "aria-label": `Move ${letter(position)} up` }),
      keyButton("↓", null, () => move(i, i + 1, "down"), { class: "down", "aria-label": `Move ${letter(position)} down` }),
      settings.ties && i > 0 ? keyButton("= above", null, () => toggleTie(i), { "aria-pressed": String(Boolean(tied[i])), "aria-label": `${letter(position)} is equal to the one above` }) : null,
    );
  }
  function drag(start, position) {
    start.preventDefault();
    let dragging = false;
    const onMove = (event) => {
      if (!dragging && Math.abs(event.clientY - start.clientY) < DRAG_THRESHOLD) return;
      dragging = true;
      scrollNear(event.clientY);
      const rows = [...list.children];
      const to = rows.findIndex((other) => event.clientY < other.getBoundingClientRect().bottom);
      const from = order.indexOf(position);
      const target = to === -1 ? rows.length - 1 : to;
      if (target !== from) move(from, target);
      list.querySelector(`[data-position="${position}"]`).classList.add("dragged");
    };
    const onUp = () => {
      removeEventListener("pointermove", onMove);
      removeEventListener("pointerup", onUp);
      removeEventListener("pointercancel", onUp);
      draw();
    };
    addEventListener("pointermove", onMove);
    addEventListener("pointerup", onUp);
    addEventListener("pointercancel", onUp);
  }
  /** Scroll the panel when something is dragged to its edge. */
  function scrollNear(y) {
    const panel = list.closest("#question") ?? document.documentElement;
    const { top, bottom } = panel.getBoundingClientRect();
    if (y < top + EDGE) panel.scrollTop -= EDGE / 4;
    if (y > bottom - EDGE) panel.scrollTop += EDGE / 4;
  }
  /** Buttons of the keys that no row of the list has. */
  function between() {
    const tie = settings.ties ? keyButton("The next is equal", "=", tieKey, { "aria-pressed": String(tieNext) }) : null;
    return [tie, keyButton("Take back", "Backspace", removeLast)].filter(Boolean);
  }
  function draw() {
    list.replaceChildren(...order.map(row));
    rest.replaceChildren(...task.responses.flatMap((_, position) => (order.includes(position) ? [] : [keyButton(`${letter(position)} is ${order.length ? "next" : "best"}`, String(position + 1), () => place(position))])), ...(order.length && order.length < count ? between() : []));
  }
  draw();
  const keys = task.responses.map((_, position) => ({ key: String(position + 1), label: `${letter(position)} is the next best`, run: () => place(position, true) }));
  if (settings.ties) keys.push({ key: "=", label: "the next is equal to the last", run: tieKey });
  keys.push({ key: "Backspace", label: "take the last one back", run: removeLast });
  return { element: h("div", {}, rest, list, live), keys, problem: () => (order.length === count ? "" : "Put all responses in order.") };
}
