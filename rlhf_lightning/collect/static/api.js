// Requests: CSRF, retries, and an outbox of answers that survives a closed tab and a lost connection.

import { root } from "./dom.js";

const csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";
const WAITS = [500, 1000, 2000, 5000, 10000, 30000];

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** GET, or POST with a payload and more options of fetch. Throws Refused for an answer of the server, TypeError without a connection. */
export async function request(path, payload, more = {}) {
  const options = payload === undefined ? {} : { method: "POST", body: JSON.stringify(payload), headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf } };
  const response = await fetch(root + path, { ...options, ...more, credentials: "same-origin", cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.error ?? `The server answered ${response.status}.`);
  return body;
}

/** A unique key of an answer. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Answers that the server hasn't acknowledged, in order; each is resent under its key until it is stored or refused. */
export class Outbox {
  /** @param listener gets (event, payload, detail) with event "stored", "refused", "waiting" or "lost-session". */
  constructor(listener) {
    this.listener = listener;
    this.waiting = [];
    this.running = false;
    this.failures = 0;
    addEventListener("online", () => this.flush());
    addEventListener("beforeunload", (event) => this.waiting.length && event.preventDefault());
  }

  /** Take over what this person left in the browser; others who use it keep theirs. */
  open(name) {
    this.storage = `collect-outbox:${root}:${name}`;
    this.waiting = JSON.parse(localStorage.getItem(this.storage) ?? "[]");
  }

  add(payload) {
    this.waiting.push(payload);
    this.save();
    return this.flush();
  }

  async flush() {
    if (this.running) return;
    this.running = true;
    try {
      while (this.waiting.length) await this.sendFirst();
    } finally {
      this.running = false;
    }
  }

  async sendFirst() {
    const payload = this.waiting[0];
    try {
      const detail = await request("/api/answer", payload);
      this.failures = 0;
      this.drop(payload);
      this.listener("stored", payload, detail);
    } catch (error) {
      const isFinal = error instanceof Refused && [404, 409, 422].includes(error.status);
      if (isFinal) {
        this.drop(payload);
        this.listener("refused", payload, error.message);
        return;
      }
      this.failures += 1;
      if (error instanceof Refused && [401, 403].includes(error.status)) this.listener("lost-session", payload, error.message);
      else this.listener("waiting", payload, error instanceof Refused ? error.message : null);
      await new Promise((resolve) => setTimeout(resolve, WAITS[Math.min(this.failures, WAITS.length) - 1]));
    }
  }

  drop(payload) {
    this.waiting = this.waiting.filter((other) => other.key !== payload.key);
    this.save();
  }

  save() {
    localStorage.setItem(this.storage, JSON.stringify(this.waiting));
  }
}
