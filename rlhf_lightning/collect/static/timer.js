// Seconds spent on an item: all of them, and those in which the page was visible and someone did something within a minute.

const IDLE = 60_000;
const TICK = 250;

export class Timer {
  constructor() {
    this.last = performance.now();
    this.touched = this.last;
    this.reset();
    for (const event of ["pointermove", "pointerdown", "keydown", "scroll", "touchstart"]) addEventListener(event, () => this.touch(), { passive: true });
    setInterval(() => this.tick(), TICK);
  }

  reset() {
    this.started = performance.now();
    this.active = 0;
    this.touch();
  }

  touch() {
    this.touched = performance.now();
  }

  tick() {
    const now = performance.now();
    const isActive = document.visibilityState === "visible" && now - this.touched < IDLE;
    if (isActive) this.active += Math.min(now - this.last, 2 * TICK);
    this.last = now;
  }

  read() {
    this.tick();
    return { seconds: this.active / 1000, elapsed: (performance.now() - this.started) / 1000 };
  }
}
