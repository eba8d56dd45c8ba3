// The annotator's page: one item, one decision at a time. `page` is the only state; the document is drawn from it.

import { Outbox, Refused, newKey, request } from "./api.js";
import { h, isolated, isTyping, keyButton, keyName, letter, root, textBlock } from "./dom.js";
import { Timer } from "./timer.js";

const HEARTBEAT = 60_000;
const POLL = 10_000;
const DRAFT_DELAY = 1000;
const $ = (id) => document.getElementById(id);
const page = { name: "", questions: [], guidelines: "", tasks: [], answers: 0, isPaused: false, isWaiting: false, task: null, steps: [], step: 0, values: {}, view: null };
const modules = {};
const timer = new Timer();
const sent = new Set();
let draftTimer = null;

const outbox = new Outbox((event, payload, detail) => {
  if (event === "stored") {
    notice("");
    accept(detail);
    showSaved(outbox.waiting.length ? waitingText("Sending") : `Sent ${clock()}`, outbox.waiting.length);
  } else if (event === "refused") {
    sent.delete(payload.assignment);
    notice(`An answer was not stored: ${detail}`);
    refresh();
  } else if (event === "lost-session") notice("Your session has ended: open your link again in this browser. Your answers are kept here until then.");
  else {
    showSaved(waitingText(detail ?? "No connection"), true);
    if (!page.task) drawItem();
  }
});

const waitingText = (reason) => `${reason}: ${outbox.waiting.length} answer${outbox.waiting.length > 1 ? "s" : ""} kept in this browser`;

// ---- Loading -----------------------------------------------------------------------------------------------------------------------

async function start() {
  try {
    const state = await request("/api/state");
    Object.assign(page, { name: state.name, questions: state.questions, guidelines: state.guidelines });
    for (const question of page.questions) modules[question.name] = await import(`${root}/questions/${question.name}.js`);
    outbox.open(page.name);
    outbox.waiting.forEach((payload) => sent.add(payload.assignment));
    accept(state);
    greet();
    outbox.flush();
    setInterval(heartbeat, HEARTBEAT);
    setInterval(() => page.task || document.visibilityState !== "visible" || refresh(), POLL);
    addEventListener("pagehide", leave);
  } catch (error) {
    notice(error instanceof Refused ? error.message : "No connection: trying again.");
    setTimeout(start, 3000);
  }
}

async function refresh() {
  try {
    accept(await request("/api/state"));
  } catch (error) {
    if (error instanceof Refused) notice(error.message);
  }
}

/** Take over the server's list of open items; the one on the screen stays. */
function accept(state) {
  page.tasks = state.tasks.filter((task) => !sent.has(task.assignment));
  for (const task of page.tasks) task.reservedUntil = performance.now() + 1000 * task.reserved;
  page.isWaiting = false;
  page.answers = state.answers;
  page.isPaused = state.is_paused;
  const isCurrent = page.task && (page.task.isReopened || page.tasks.some((task) => task.assignment === page.task.assignment && task.version === page.task.version));
  if (isCurrent) drawBar();
  else showTask(page.tasks[0] ?? null);
}

async function heartbeat() {
  if (document.visibilityState !== "visible" || !page.task) return;
  try {
    const { is_paused } = await request("/api/heartbeat", {});
    if (is_paused !== page.isPaused) refresh();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) notice("Your session has ended: open your link again.");
  }
}

/** The next item, unless its reservation ran out: then the server says which one is next. */
function preloaded() {
  const [next] = page.tasks;
  return next && !page.isPaused && performance.now() < next.reservedUntil ? next : null;
}

/** Others get what hasn't been shown here. */
function leave() {
  request("/api/leave", {}, { keepalive: true }).catch(() => {});
}

// ---- The item ----------------------------------------------------------------------------------------------------------------------

function showTask(task) {
  page.task = task;
  page.step = 0;
  page.values = task ? { ...task.steps, ...localDraft(task) } : {};
  page.steps = task ? stepsOf(task) : [];
  timer.reset();
  drawItem();
  drawStep();
  drawBar();
  scrollTo(0, 0);
}

function stepsOf(task) {
  const count = task.responses.length;
  return page.questions.flatMap((question) => {
    if (question.scope === "item") {
      const [low, high] = question.responses;
      return count >= low && count <= high ? [{ name: question.name, question, position: 0 }] : [];
    }
    return task.responses.map((_, position) => ({ name: `${question.name}/${position}`, question, position }));
  });
}

/** What stands in the place of an item, and what happens next. */
function emptyState() {
  if (page.isWaiting && outbox.failures) return ["No answer from the server", "Your answers are kept in this browser, and are sent as soon as it answers. Then the next item comes by itself."];
  if (page.isWaiting) return ["The next item is coming …", ""];
  if (page.isPaused) return ["Paused", "The collection is paused. Your answers are stored; this page goes on by itself."];
  return ["Thank you!", `You have judged ${page.answers}, and nothing is left for you now. If something comes, it appears here by itself.`];
}

function drawItem() {
  const { task } = page;
  if (!task) {
    const [title, text] = emptyState();
    $("item").replaceChildren(h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text)));
    return;
  }
  const prompt = typeof task.prompt === "string" ? [{ role: null, content: task.prompt }] : task.prompt;
  const turns = prompt.map((turn) => h("div", { class: "turn" }, turn.role ? h("p", { class: "label" }, turn.role) : null, textBlock(turn.content)));
  const limit = task.responses.length > 2 ? 900 : 2400;
  const cards = task.responses.map((text, position) =>
    h("article", { class: "response", id: `response-${position}`, "aria-label": `Response ${letter(position)}` }, h("p", { class: "label" }, task.responses.length > 1 ? `Response ${letter(position)}` : "Response"), textBlock(text, limit)),
  );
  const isBlank = typeof task.prompt === "string" && !task.prompt;
  $("item").replaceChildren(...(isBlank ? [] : [h("section", { class: "prompt", "aria-label": "Prompt" }, ...turns)]), h("div", { class: "responses" }, ...cards));
  const count = document.querySelectorAll("#item .folded").length;
  if (count > 1) $("item").prepend(keyButton(`Show all ${count} folded texts`, "x", unfold, { id: "unfold" }));
}

function unfold() {
  document.querySelectorAll("#item .folded button").forEach((button) => button.click());
  $("unfold")?.remove();
}

function drawStep() {
  page.view?.dispose?.();
  page.view = null;
  const { task } = page;
  if (!task) return $("question").replaceChildren();
  const step = page.steps[page.step];
  document.querySelectorAll(".response").forEach((card, position) => card.classList.toggle("current", task.responses.length > 1 && step.question.scope === "response" && position === step.position));
  document.querySelectorAll(".response.replaced").forEach((card) => card.classList.remove("replaced"));
  page.view = modules[step.question.name].create({
    settings: step.question.settings,
    task,
    position: step.position,
    value: page.values[step.name] ?? null,
    change: (value) => setValue(step.name, value),
    done: () => forward(),
  });
  if (page.view.showsResponse) $(`response-${step.position}`).classList.add("replaced");
  // An answer that stands without doing anything: an unchanged edit, no span.
  page.values[step.name] ??= page.view.initial;
  const count = page.steps.length > 1 ? h("p", { class: "label" }, `Question ${page.step + 1} of ${page.steps.length}`) : null;
  const name = step.question.scope === "response" && task.responses.length > 1 ? `Response ${letter(step.position)}: ` : "";
  const isText = page.view.focus instanceof HTMLTextAreaElement;
  const send = keyButton("", isText ? "Ctrl+Enter" : "Enter", () => forward(), { id: "send", class: "primary" });
  const back = page.step > 0 ? keyButton("Back", "ArrowLeft", () => backward(), { id: "back" }) : null;
  $("question").replaceChildren(...[count, h("h2", { id: "question-title", tabindex: "-1" }, name + step.question.title), page.view.element, h("p", { id: "error", class: "error", role: "alert" }), h("div", { class: "send" }, send, back)].filter(Boolean));
  drawSend();
  (page.view.focus ?? $("question-title")).focus({ preventScroll: true });
}

function drawSend() {
  const step = page.steps[page.step];
  const isLast = page.step === page.steps.length - 1;
  const isSkippable = !step.question.required && isEmpty(page.values[step.name]);
  $("send").firstChild.textContent = isLast ? "Send" : isSkippable ? "Leave empty" : "Next";
}

const isEmpty = (value) => value === null || value === undefined || value === "";
const answers = () => Object.fromEntries(Object.entries(page.values).filter(([, value]) => !isEmpty(value)));

function setValue(name, value) {
  if (isEmpty(value)) delete page.values[name];
  else page.values[name] = value;
  $("error").textContent = "";
  saveDraft();
  drawSend();
}

function forward() {
  const step = page.steps[page.step];
  const problem = page.view?.problem?.();
  if (problem || (step.question.required && isEmpty(page.values[step.name]))) {
    $("error").textContent = problem || "An answer is needed here. To leave the item out, skip it.";
    return;
  }
  if (page.step < page.steps.length - 1) {
    page.step += 1;
    drawStep();
  } else send();
}

function backward() {
  if (page.step > 0) {
    page.step -= 1;
    drawStep();
  }
}

function send() {
  const { task } = page;
  if (!Object.keys(answers()).length) {
    $("error").textContent = "The answer is empty. To leave the item out, skip it.";
    return;
  }
  clearTimeout(draftTimer);
  localStorage.removeItem(draftKey(task));
  if (!task.isReopened) sent.add(task.assignment);
  const payload = { ...stampOf(task), steps: answers() };
  page.tasks = page.tasks.filter((other) => other.assignment !== task.assignment);
  page.answers += task.isReopened ? 0 : 1;
  page.isWaiting = true;
  showTask(preloaded());
  outbox.add(payload);
}

/** What an answer or a skip says besides its content. */
const stampOf = (task) => ({ key: newKey(), assignment: task.assignment, version: task.version, client_time: Date.now() / 1000, ...timer.read() });

// ---- Drafts ------------------------------------------------------------------------------------------------------------------------

const draftKey = (task) => `collect-draft:${root}:${page.name}:${task.assignment}:${task.version}`;

function localDraft(task) {
  return JSON.parse(localStorage.getItem(draftKey(task)) ?? "{}");
}

function saveDraft() {
  const { task, values } = page;
  localStorage.setItem(draftKey(task), JSON.stringify(values));
  clearTimeout(draftTimer);
  const payload = { assignment: task.assignment, version: task.version, steps: { ...values } };
  draftTimer = setTimeout(async () => {
    try {
      await request("/api/draft", payload);
      showSaved(`Draft saved ${clock()}`);
    } catch (error) {
      if (error instanceof Refused && error.status === 409 && page.task === task) {
        notice(`${error.message}.`);
        page.task = null;
        refresh();
      } else showSaved(`${error instanceof Refused ? error.message : "No connection"}: the draft is kept in this browser`, true);
    }
  }, DRAFT_DELAY);
}

// ---- Actions -----------------------------------------------------------------------------------------------------------------------

function askReason(flag) {
  if (!page.task) return;
  const stamp = stampOf(page.task); // the key is made once: a skip that is sent again is the same skip
  const reason = h("textarea", { id: "reason", maxlength: "500", rows: "3", dir: "auto" });
  const label = flag ? "What is wrong with this item?" : "Why do you skip it? (may stay empty)";
  openDialog(flag ? "Flag this item" : "Skip this item", [h("label", { for: "reason" }, label), reason], flag ? "Flag and go on" : "Skip", async () => {
    const state = await request("/api/skip", { ...stamp, reason: reason.value.trim() || null, flag });
    page.task = null;
    accept(state);
  });
}

async function showRecent() {
  try {
    const { recent } = await request("/api/recent");
    const rows = recent.map((row) =>
      h("li", {}, keyButton([`${row.state === "skipped" ? "Skipped" : "Answered"} ${clock(row.time)}: `, isolated(row.excerpt)], null, () => reopen(row.assignment))),
    );
    openDialog("Change an earlier answer", [rows.length ? h("ul", { class: "plain" }, ...rows) : h("p", {}, "There is none yet.")]);
  } catch (error) {
    notice(error instanceof Refused ? error.message : "No connection.");
  }
}

async function undo() {
  try {
    await outbox.flush();
    const { recent } = await request("/api/recent");
    if (recent.length) await reopen(recent[0].assignment);
  } catch (error) {
    notice(error instanceof Refused ? error.message : "No connection.");
  }
}

async function reopen(assignment) {
  try {
    const { task } = await request("/api/reopen", { assignment });
    closeDialog();
    sent.delete(assignment);
    showTask({ ...task, isReopened: true });
  } catch (error) {
    closeDialog();
    notice(error instanceof Refused ? error.message : "No connection.");
  }
}

const showGuidelines = () => openDialog("Guidelines", [h("p", { class: "text", dir: "auto" }, page.guidelines || "There are none for this collection.")]);

/** Guidelines that this person hasn't seen in this browser come first. */
function greet() {
  const seen = `collect-guidelines:${root}:${page.name}`;
  if (!page.guidelines || localStorage.getItem(seen) === page.guidelines) return;
  localStorage.setItem(seen, page.guidelines);
  showGuidelines();
}

function showHelp() {
  const keys = [...(page.view?.keys ?? []).map(({ key, label }) => [key, label]), ["Enter", "next question, or send (Ctrl+Enter in a text)"], ...ACTIONS.map(({ key, label }) => [key, label])];
  if (document.querySelector("#unfold")) keys.push(["x", "show all folded texts"]);
  openDialog("Keys", [h("ul", { class: "plain" }, ...keys.map(([key, label]) => h("li", {}, h("kbd", {}, keyName(key)), ` ${label}`)))]);
}

const ACTIONS = [
  { key: "u", label: "Undo", run: undo },
  { key: "r", label: "Earlier answers", run: showRecent },
  { key: "s", label: "Skip", run: () => askReason(false) },
  { key: "f", label: "Flag", run: () => askReason(true) },
  { key: "g", label: "Guidelines", run: showGuidelines },
  { key: "?", label: "Keys", run: showHelp },
];

function onKey(event) {
  if (event.isComposing || $("dialog").open) return;
  const isCommand = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && page.task && (isCommand || (!isTyping(event.target) && !(event.target instanceof HTMLButtonElement && event.target.id !== "send")))) {
    event.preventDefault();
    if (!event.repeat) forward();
    return;
  }
  if (isTyping(event.target)) {
    if (event.key === "Escape") $("question-title")?.focus();
    return;
  }
  if (isCommand || event.altKey || event.repeat) return;
  if (event.key === "ArrowLeft" && page.step > 0 && !(event.target instanceof HTMLInputElement) && !page.view?.usesArrows) return void backward();
  const action = page.view?.keys?.find(({ key }) => key === event.key.toLowerCase() || key === event.key) ?? [...ACTIONS, { key: "x", run: unfold }].find(({ key }) => key === event.key.toLowerCase());
  if (action && (page.task || "urg?".includes(action.key))) {
    event.preventDefault();
    action.run();
  }
}

// ---- Bar, notices, dialogs ---------------------------------------------------------------------------------------------------------

function drawBar() {
  $("count").replaceChildren(isolated(page.name), `: ${page.answers} judged`);
}

function drawActions() {
  $("actions").replaceChildren(...ACTIONS.map(({ key, label, run }) => keyButton(label, key, run)));
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

function showSaved(text, isWarning = false) {
  $("saved").textContent = text;
  $("saved").classList.toggle("warning", Boolean(isWarning));
}

function clock(seconds = Date.now() / 1000) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function openDialog(title, content, action, run) {
  const error = h("p", { class: "error", role: "alert" });
  const confirm = action ? keyButton(action, "Enter", () => confirmDialog(run, error), { class: "primary" }) : null;
  const close = keyButton(action ? "Cancel" : "Close", "Escape", closeDialog);
  $("dialog").replaceChildren(h("h2", { id: "dialog-title" }, title), ...content, error, h("div", { class: "send" }, ...[confirm, close].filter(Boolean)));
  $("dialog").onkeydown = (event) => {
    if (event.key !== "Enter" || !action || event.shiftKey || event.isComposing || event.target instanceof HTMLButtonElement) return;
    event.preventDefault();
    confirmDialog(run, error);
  };
  if (!$("dialog").open) $("dialog").showModal();
}

async function confirmDialog(run, error) {
  try {
    await run();
    closeDialog();
  } catch (cause) {
    error.textContent = cause instanceof Refused ? cause.message : "No connection: try again.";
  }
}

function closeDialog() {
  if ($("dialog").open) $("dialog").close();
}

drawActions();
addEventListener("keydown", onKey);
start();
