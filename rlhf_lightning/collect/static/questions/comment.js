// A written comment.

import { h } from "../static/dom.js";

export function create({ settings, value, change }) {
  const area = h("textarea", { "aria-labelledby": "question-title", maxlength: settings.max_characters, dir: "auto" }, value ?? "");
  area.addEventListener("input", () => change(area.value.trim() ? area.value : null));
  return { element: h("div", {}, area, h("p", { class: "label" }, "Escape leaves the field: then the keys of the buttons work.")), keys: [], focus: area };
}
