// Elements, texts and keys. Texts from the database only ever become text nodes.

export const root = document.querySelector('meta[name="root"]').content;

/** An element with properties and children; strings become text nodes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text inside a sentence, whose direction ends with it. */
export const isolated = (text) => h("bdi", {}, text);

/** A button that shows its key. */
export function keyButton(label, key, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, ...[label].flat(), key ? h("kbd", { "aria-hidden": "true" }, keyName(key)) : null);
}

export function keyName(key) {
  return { Enter: "Enter", "Ctrl+Enter": "Ctrl+Enter", Escape: "Esc", Backspace: "⌫", ArrowLeft: "←", ArrowRight: "→", " ": "Space" }[key] ?? key.toUpperCase();
}

/** A text block in its own direction; one of more than `limit` characters is folded. */
export function textBlock(text, limit = 2400) {
  const block = h("p", { class: "text", dir: "auto" }, text);
  const isLong = text.length > limit || text.split("\n").length > limit / 80;
  if (!isLong) return h("div", {}, block);
  const box = h("div", { class: "folded" }, block);
  const button = h("button", { type: "button", "aria-expanded": "false" }, "Show the whole text");
  button.addEventListener("click", () => {
    const folded = box.classList.toggle("folded");
    button.textContent = folded ? "Show the whole text" : "Show less";
    button.setAttribute("aria-expanded", String(!folded));
  });
  box.append(button);
  return box;
}

/** The letter of a display position: A, B, ... */
export const letter = (position) => String.fromCharCode(65 + position);

/** Whether keys belong to a text field now. */
export function isTyping(target) {
  return target instanceof HTMLTextAreaElement || (target instanceof HTMLInputElement && !["radio", "range", "checkbox"].includes(target.type));
}

/** Number of characters (code points) before an offset in UTF-16 units, and back. */
export const toCodePoints = (text, offset) => Array.from(text.slice(0, offset)).length;
export const toUnits = (text, count) => Array.from(text).slice(0, count).join("").length;
