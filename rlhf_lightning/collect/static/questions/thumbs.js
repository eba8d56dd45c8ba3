// Thumbs up or down for a response, and for the earlier turns of a dialogue.

import { h, keyButton } from "../static/dom.js";

export function create({ settings, task, value, change, done }) {
  let current = value;
  const turns = settings.turns && typeof task.prompt !== "string" ? task.prompt.map((turn, i) => [i, turn]).filter(([, turn]) => turn.role === "assistant") : [];
  const element = h("div", {});

  function choose(up) {
    current = { ...current, up };
    update();
    done();
  }
  function chooseTurn(i, up) {
    const others = { ...current?.turns };
    if (others[i] === up) delete others[i];
    else others[i] = up;
    current = { ...current, turns: others };
    update();
  }
  function update() {
    change(typeof current?.up === "boolean" ? current : null);
    draw();
  }
  function draw() {
    const earlier = turns.map(([i, turn], number) =>
      h(
        "div",
        { class: "choices", role: "group", "aria-label": `Assistant's turn ${number + 1}` },
        h("span", { class: "excerpt", dir: "auto" }, turn.content.slice(0, 80)),
        keyButton("Good", null, () => chooseTurn(i, true), { "aria-pressed": String(current?.turns?.[i] === true) }),
        keyButton("Bad", null, () => chooseTurn(i, false), { "aria-pressed": String(current?.turns?.[i] === false) }),
      ),
    );
    const choices = h(
      "div",
      { class: "choices" },
      keyButton("Good", "1", () => choose(true), { "aria-pressed": String(current?.up === true) }),
      keyButton("Bad", "2", () => choose(false), { "aria-pressed": String(current?.up === false) }),
    );
    element.replaceChildren(...earlier, choices);
  }
  draw();
  const keys = [
    { key: "1", label: "good", run: () => choose(true) },
    { key: "2", label: "bad", run: () => choose(false) },
  ];
  return { element, keys };
}
