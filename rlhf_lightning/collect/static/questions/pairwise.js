// A or B, a tie, both bad; with degrees, how much better.

import { h, keyButton } from "../static/dom.js";

const LABELS = { a: ["A is better", "1"], b: ["B is better", "2"], tie: ["Equally good", "0"], both_bad: ["Both bad", "b"] };
const DEGREES = ["slightly", "clearly", "much", "far"];

export function create({ settings, value, change, done }) {
  let current = value;
  const choices = h("div", { class: "choices" });
  const degrees = h("div", { class: "choices" });
  const element = h("div", {}, choices, degrees);

  const isDecided = () => current?.choice === "a" || current?.choice === "b";
  const needsDegree = () => settings.strengths > 1 && isDecided() && !current.strength;

  function choose(choice) {
    current = { choice };
    update();
    if (!needsDegree()) done();
  }
  function setDegree(strength) {
    current = { ...current, strength };
    update();
    done();
  }
  function update() {
    change(needsDegree() ? null : current);
    draw();
  }
  function draw() {
    choices.replaceChildren(...settings.choices.map((choice) => keyButton(LABELS[choice][0], LABELS[choice][1], () => choose(choice), { "aria-pressed": String(current?.choice === choice) })));
    const names = settings.strengths > 1 && isDecided() ? DEGREES.slice(0, settings.strengths) : [];
    degrees.replaceChildren(...names.map((name, i) => keyButton(`${name} better`, String(i + 3), () => setDegree(i + 1), { "aria-pressed": String(current.strength === i + 1) })));
  }
  draw();
  const keys = settings.choices.map((choice) => ({ key: LABELS[choice][1], label: LABELS[choice][0], run: () => choose(choice) }));
  if (settings.strengths > 1) {
    for (let i = 0; i < settings.strengths; i++) keys.push({ key: String(i + 3), label: `${DEGREES[i]} better`, run: () => isDecided() && setDegree(i + 1) });
  }
  return { element, keys, problem: () => (needsDegree() ? "How much better is it?" : "") };
}
