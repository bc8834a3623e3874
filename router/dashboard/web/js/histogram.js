// The bars above the log: how much was logged when, by level. Dragging or Shift with the arrow keys marks a
// time to zoom into; a click goes there.

import { NAMES, bars, height } from "./bars.js";
import { button, fill, h, s } from "./dom.js";
import { whole } from "./number.js";
import { settings } from "./settings.js";
import { moment } from "./time.js";

const HIGH = 56;

export class Histogram {
  bars = [];
  step = 1000;
  #cursor = -1;
  #mark = null;

  /**
   * @param {object} told
   * @param {(from: number, until: number) => void} told.zoom
   * @param {() => void} told.out
   * @param {(time: number) => void} told.go
   */
  constructor(told) {
    this.told = told;
    this.svg = s("svg", { class: "bars", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.shade = h("div", { class: "shade", hidden: true });
    this.sight = h("div", { class: "sight", hidden: true });
    this.tip = h("div", { class: "tip", hidden: true });
    this.plot = h("div", {
      class: "plot", role: "slider", tabIndex: 0, "aria-label": "Events over time", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-valuetext": "nothing yet", "data-moves": true,
      onpointerdown: (event) => this.#down(event), onpointermove: (event) => this.#over(event), onpointerleave: () => this.#leave(), onkeydown: (event) => this.#key(event), onblur: () => this.#leave(),
    }, this.svg, this.sight, this.shade, this.tip);
    this.axis = h("div", { class: "axis", "data-moves": true, "aria-hidden": "true" });
    this.summary = h("p", { class: "summary", "data-moves": true });
    this.out = button("Zoom out", { icon: "zoomOut", class: "plain", onclick: () => told.out() });
    this.element = h("section", { class: "histogram", "data-test": "histogram", "aria-label": "Histogram" },
      this.plot, this.axis, h("div", { class: "below" }, this.summary, this.out));
  }

  focus() {
    this.plot.focus();
  }

  /**
   * Shows counts.
   * @param {object[]} items  Steps of the API.
   * @param {boolean} partial  Not all could be counted in time.
   */
  show(items, { from, until, step, partial }) {
    this.bars = bars(items, from, until, step);
    this.step = step;
    this.from = this.bars[0]?.at ?? from;
    this.until = (this.bars.at(-1)?.at ?? until) + step;
    const most = Math.max(1, ...this.bars.map((bar) => bar.total));
    this.svg.setAttribute("viewBox", `0 0 ${this.bars.length} ${HIGH}`);
    this.svg.replaceChildren(...this.bars.flatMap((bar, index) => this.#bar(bar, index, most)));
    const now = Date.now();
    const middle = this.from + (this.until - this.from) / 2;
    fill(this.axis, [this.from, middle, this.until].map((time) => h("span", null, moment(time, settings.utc, now))));
    this.#sum(partial);
    this.plot.setAttribute("aria-valuemax", String(Math.max(0, this.bars.length - 1)));
    if (this.#cursor < 0) this.plot.setAttribute("aria-valuetext", this.summary.textContent || "nothing");
  }

  /** Shows that there is nothing to count. */
  clear(text) {
    this.bars = [];
    this.svg.replaceChildren();
    fill(this.axis);
    this.summary.textContent = text;
    this.sight.hidden = true;
  }

  /** Shows which part of the time the lines on screen are from, ms. */
  inSight(first, last) {
    const hidden = this.bars.length === 0 || first === null || last < this.from || first > this.until;
    this.sight.hidden = hidden;
    if (hidden) return;
    place(this.sight, this.#share(first), this.#share(last));
  }

  #share(time) {
    return Math.max(0, Math.min(1, (time - this.from) / (this.until - this.from)));
  }

  #bar(bar, index, most) {
    const all = height(bar.total, most) * (HIGH - 2);
    let y = HIGH;
    return bar.counts.flatMap((count, level) => {
      if (count === 0) return [];
      const high = (all * count) / bar.total;
      y -= high;
      return s("rect", { class: `is-${NAMES[level]}`, x: index + 0.1, width: 0.8, y: y.toFixed(2), height: high.toFixed(2) });
    });
  }

  #sum(partial) {
    const sums = NAMES.map((_, level) => this.bars.reduce((sum, bar) => sum + bar.counts[level], 0));
    const total = sums.reduce((sum, count) => sum + count, 0);
    fill(this.summary, h("span", null, `${partial ? "at least " : ""}${whole(total)} event${total === 1 ? "" : "s"}`),
      [3, 2].filter((level) => sums[level] > 0).map((level) => h("span", { class: `is-${NAMES[level]}` }, ` · ${whole(sums[level])} ${NAMES[level]}`)));
  }

  #text(index) {
    const bar = this.bars[index];
    const now = Date.now();
    const counts = NAMES.map((name, level) => [name, bar.counts[level]]).reverse().filter(([, count]) => count > 0);
    const said = counts.map(([name, count]) => `${whole(count)} ${name}`).join(", ") || "nothing";
    return `${moment(bar.at, settings.utc, now)}: ${said}`;
  }

  #at(event) {
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return Math.max(0, Math.min(this.bars.length - 1, Math.floor(share * this.bars.length)));
  }

  #down(event) {
    if (event.button !== 0 || this.bars.length === 0) return;
    const start = this.#at(event);
    this.plot.setPointerCapture(event.pointerId);
    this.#mark = [start, start];
    const move = (moved) => {
      this.#mark = [start, this.#at(moved)];
      this.#shade();
    };
    const up = (ended) => {
      this.plot.removeEventListener("pointermove", move);
      this.plot.removeEventListener("pointerup", up);
      this.plot.removeEventListener("pointercancel", up);
      const mark = this.#mark;
      this.#mark = null;
      this.#shade();
      if (ended.type === "pointercancel") return;
      if (mark[0] === mark[1]) this.told.go(this.bars[mark[0]].at);
      else this.#zoom(mark);
    };
    this.plot.addEventListener("pointermove", move);
    this.plot.addEventListener("pointerup", up);
    this.plot.addEventListener("pointercancel", up);
  }

  #over(event) {
    if (this.bars.length > 0) this.#point(this.#at(event));
  }

  #leave() {
    this.tip.hidden = true;
  }

  /** Shows what a bar stands for. */
  #point(index) {
    this.#cursor = index;
    const text = this.#text(index);
    this.tip.textContent = text;
    this.tip.hidden = false;
    const share = (index + 0.5) / this.bars.length;
    this.tip.style.left = `${share * 100}%`;
    this.tip.style.transform = `translateX(${share < 0.15 ? "0" : share > 0.85 ? "-100%" : "-50%"})`;
    this.plot.setAttribute("aria-valuenow", String(index));
    this.plot.setAttribute("aria-valuetext", text);
  }

  #zoom([one, other]) {
    this.told.zoom(this.bars[Math.min(one, other)].at, this.bars[Math.max(one, other)].at + this.step);
  }

  #shade() {
    this.shade.hidden = this.#mark === null;
    if (!this.#mark) return;
    const [one, other] = this.#mark;
    place(this.shade, Math.min(one, other) / this.bars.length, (Math.max(one, other) + 1) / this.bars.length);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.bars.length === 0) return;
    const last = this.bars.length - 1;
    const cursor = Math.min(this.#cursor < 0 ? last : this.#cursor, last);
    const to = { ArrowLeft: cursor - 1, ArrowRight: cursor + 1, Home: 0, End: last, PageUp: cursor - 10, PageDown: cursor + 10 }[event.key];
    if (to !== undefined) {
      const index = Math.max(0, Math.min(last, to));
      this.#mark = event.shiftKey ? [this.#mark?.[0] ?? cursor, index] : null;
      this.#point(index);
    } else if (event.key === "Enter") {
      if (this.#mark) this.#zoom(this.#mark);
      else this.told.go(this.bars[cursor].at);
      this.#mark = null;
    } else if (event.key === "+" || event.key === "=") this.#zoom(this.#mark ?? [cursor, cursor]);
    else if (event.key === "-" || event.key === "Backspace") this.told.out();
    else if (event.key === "Escape" && this.#mark) this.#mark = null;
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.#shade();
  }
}

function place(element, from, to) {
  element.style.left = `${from * 100}%`;
  element.style.width = `${Math.max(0.2, (to - from) * 100)}%`;
}
