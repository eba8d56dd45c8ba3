// Stars: one key per level. A slider without a start value: arrow keys, or a number.

import { h } from "../static/dom.js";

export function create({ settings, value, change, done }) {
  return settings.display === "slider" ? slider(settings, value, change) : stars(settings, value, change, done);
}

function stars({ low, high, step, labels }, value, change, done) {
  const levels = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => Number((low + i * step).toPrecision(12)));
  const keyOf = (i) => (levels.length > 9 ? (i + 1) % 10 : i + 1).toString();
  const inputs = levels.map((level, i) =>
    h("input", { type: "radio", name: "stars", value: String(level), checked: value === level, id: `star-${i}`, onclick: (event) => choose(level, event.detail > 0), onchange: () => change(level) }),
  );
  const choose = (level, isPointer) => {
    change(level);
    if (isPointer) done();
  };
  const element = h(
    "fieldset",
    { class: "stars" },
    h("legend", { class: "label" }, `${levels[0]} ${labels[0]} … ${levels.at(-1)} ${labels[1]}`),
    ...levels.map((level, i) => h("label", { for: `star-${i}` }, inputs[i], `${"★".repeat(levels.length <= 5 ? i + 1 : 1)} ${level}`, h("kbd", { "aria-hidden": "true" }, keyOf(i)))),
  );
  const keys = levels.map((level, i) => ({
    key: keyOf(i),
    label: `rate ${level}`,
    run: () => {
      inputs[i].checked = true;
      change(level);
      done();
    },
  }));
  return { element, keys, usesArrows: true };
}

function slider({ low, high, step, labels }, value, change) {
  const range = h("input", { type: "range", id: "slider", min: low, max: high, step, value: value ?? (low + high) / 2, "aria-label": "Rating" });
  const number = h("input", { type: "number", min: low, max: high, step, value: value ?? "", placeholder: "not set", "aria-label": "Rating as a number" });
  let current = value;
  const set = (next, from) => {
    current = next;
    if (from !== number) number.value = next ?? "";
    if (from !== range && next !== null) range.value = next;
    change(next);
  };
  range.addEventListener("input", () => set(Number(range.value), range));
  range.addEventListener("click", () => set(Number(range.value), range));
  number.addEventListener("input", () => set(number.value === "" ? null : Number(number.value), number));
  number.addEventListener("keydown", (event) => {
    if (event.key === "Enter") number.blur();
  });
  const element = h("div", {}, h("div", { class: "choices" }, range, number), h("p", { class: "ends" }, h("span", {}, `${low} ${labels[0]}`), h("span", {}, `${high} ${labels[1]}`)));
  const problem = () => (current !== null && (current < low || current > high) ? `A number from ${low} to ${high}, please.` : "");
  return { element, keys: [], focus: range, problem, usesArrows: true };
}
