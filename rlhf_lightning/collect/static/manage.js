// The manager's page: figures that refresh themselves, pausing, annotators, links.

import { h, root } from "./dom.js";
import { Refused, request } from "./api.js";

const REFRESH = 5000;
const $ = (id) => document.getElementById(id);
const MIN_GOLD = 5;
const LOW_GOLD = 0.7;
const MOST_FAST = 0.3;
let isPaused = false;

const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);
const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toLocaleString([], { maximumFractionDigits: digits }));

async function refresh() {
  try {
    draw(await request("/api/manage"));
    notice("");
  } catch (error) {
    notice(error instanceof Refused ? error.message : "No connection to the server: it may have ended.");
  }
}

function draw({ progress, annotators, agreement, flags, is_paused, has_round, age }) {
  isPaused = is_paused;
  $("finish").hidden = !has_round;
  $("pause").textContent = isPaused ? "Continue" : "Pause";
  $("status").textContent = isPaused ? "Paused" : `${progress.answers} of ${progress.slots} judgements`;
  $("bar").max = Math.max(progress.slots, 1);
  $("bar").value = progress.answers;
  const figures = { Items: progress.items, "Complete items": progress.complete, Judgements: `${progress.answers} of ${progress.slots}`, "On screens now": progress.open, Skipped: progress.skipped, "Late, not counted": progress.surplus, "Judgements an hour": number(progress.per_hour), "Hours left": number(progress.hours_left) };
  $("progress").replaceChildren(...Object.entries(figures).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
  $("age").textContent = `Agreement and annotators as of ${number(age, 0)} seconds ago`;
  table($("agreement"), ["Kind", "Krippendorff's alpha", "95 % interval", "Units judged by several"], agreement.alpha.map((row) => [row.aspect ? `${row.kind} of ${row.aspect}` : row.kind, number(row.alpha, 2), row.low === null ? "–" : `${number(row.low, 2)} to ${number(row.high, 2)}`, row.units]), "Nothing was judged by two people yet.");
  const people = annotators.map((person) => {
    const habits = agreement.annotators[person.name] ?? {};
    const seen = person.last_seen ? new Date(person.last_seen * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "never";
    const action = person.is_active ? h("button", { type: "button", onclick: () => revoke(person), "aria-label": `Revoke ${person.name}` }, "Revoke") : "revoked";
    const gold = flagged(`${percent(person.gold_accuracy)} of ${person.gold}`, person.gold >= MIN_GOLD && person.gold_accuracy < LOW_GOLD);
    const fast = flagged(percent(person.too_fast), person.answers >= MIN_GOLD && person.too_fast > MOST_FAST);
    return [person.name, person.answers, person.skips, gold, number(habits.reliability, 2), number(person.median_seconds), fast, percent(habits.first), seen, action];
  });
  table($("people"), ["Name", "Answers", "Skips", "Gold right", "Reliability", "Median seconds", "Under a second", "First position wins", "Last seen", "Access"], people, "No annotators yet.");
  table($("flags"), ["Annotator", "Action", "Reason", "Item", "Response"], flags.map((row) => [row.annotator, row.is_flagged ? h("strong", {}, "flagged") : "skipped", row.reason || "–", row.item, row.excerpt]), "None.");
}

/** A figure that the manager should look at; nobody is locked out by it. */
const flagged = (text, isOdd) => (isOdd ? h("strong", { class: "odd" }, `${text}: look at it`) : text);

function table(element, heads, rows, empty) {
  const body = rows.length ? rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", { class: typeof cell === "number" ? "number" : "", dir: "auto" }, cell instanceof Node ? cell : String(cell))))) : [h("tr", {}, h("td", { colspan: heads.length }, empty))];
  element.replaceChildren(h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, ...body));
}

async function act(path, payload) {
  try {
    const result = await request(path, payload);
    await refresh();
    return result;
  } catch (error) {
    notice(error instanceof Refused ? error.message : "No connection.");
    return null;
  }
}

async function revoke(person) {
  if (confirm(`Revoke the links of ${person.name}? The answers stay.`)) await act("/api/manage/revoke", { annotator: person.id });
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

$("pause").addEventListener("click", () => act("/api/manage/pause", { is_paused: !isPaused }));
$("finish").addEventListener("click", () => confirm("Go on with the answers so far?") && act("/api/manage/finish", {}));
$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const result = await act("/api/manage/add", { name: $("name").value });
  if (!result) return;
  $("name").value = "";
  $("link").textContent = `The link of ${result.name}, shown once: ${location.origin}${root}/t/${result.token}`;
});
refresh();
setInterval(refresh, REFRESH);
