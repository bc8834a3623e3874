// The lines on screen: a virtual list that follows the end or stays where one looks, with one line chosen.

import { fill, h, id, shown } from "../dom.js";
import { compare } from "../place.js";
import { settings } from "../settings.js";
import { excerpt, pieces, visible } from "../text.js";
import { clock, day } from "../time.js";
import { VirtualList } from "../virtual.js";

/** Characters of a message that a row has; the rest is in the open event. */
const IN_ROW = 500;
/** Rows from either end at which more is read. */
const NEAR = 80;

export class LogView {
  /** Counts changes of how lines are drawn. */
  #version = 0;
  #chosen = null;
  #pattern = null;
  #touched = false;

  /**
   * @param {object} told
   * @param {() => import("./stream.js").LogStream} told.stream
   * @param {(line: object) => void} told.open
   * @param {(line: object | null) => void} told.chosen
   * @param {() => void} told.moved
   */
  constructor(told) {
    this.told = told;
    this.name = id("line");
    this.sizer = h("div", { class: "lines", role: "presentation" });
    this.day = h("div", { class: "day", "data-moves": true, "aria-hidden": "true" });
    this.scroller = h("div", { class: "scroller", role: "listbox", tabIndex: 0, "aria-label": "Events", onkeydown: (event) => this.#key(event) }, this.sizer);
    this.element = h("section", { class: "log", role: "log", "aria-live": "off", "aria-label": "Log" }, this.day, this.scroller);
    this.#watch();
  }

  /** Begins to draw, once the element is part of the page. */
  start() {
    this.list = new VirtualList(this.scroller, this.sizer, {
      count: () => this.#lines.length,
      make: () => this.#row(),
      show: (row, index) => this.#show(row, index),
      moved: () => this.#moved(),
    });
  }

  close() {
    this.list?.close();
  }

  get #lines() {
    return this.told.stream().lines;
  }

  get chosen() {
    return this.#chosen;
  }

  /** What is marked. */
  set pattern(pattern) {
    this.#pattern = pattern;
    this.redraw();
  }

  /** Draws all anew: the way times are written has changed. */
  redraw() {
    this.#version += 1;
    this.list?.draw();
  }

  /** Has lines changed without what is in sight moving, or at the end if that is followed. */
  around(mutate) {
    const { list } = this;
    const index = list.first;
    const anchor = this.#lines.items[index];
    const offset = this.scroller.scrollTop - index * list.rowHeight;
    mutate();
    list.resize();
    if (this.told.stream().following) list.toEnd();
    else if (anchor) {
      const top = this.#lines.indexOf(anchor) * list.rowHeight + offset;
      if (Math.abs(top - this.scroller.scrollTop) >= 1) this.scroller.scrollTop = top;
    }
    list.draw();
  }

  toEnd() {
    this.list.toEnd();
    this.list.draw();
  }

  /** Chooses a line, or the one behind a place, and shows it. */
  choose(place, where = "reveal") {
    const index = Math.min(this.#lines.indexOf(place), this.#lines.length - 1);
    const line = this.#lines.items[index];
    this.#choose(line ?? null);
    if (line) this.list[where](index);
  }

  unchoose() {
    this.#choose(null);
  }

  /** The first and last line in sight. */
  get inSight() {
    const { items } = this.#lines;
    return { first: items[this.list.first] ?? null, last: items[this.list.last] ?? null };
  }

  /** Chooses the line so many away from the chosen one, or the last in sight. */
  step(count) {
    const { items } = this.#lines;
    if (items.length === 0) return;
    const from = this.#chosen ? this.#lines.indexOf(this.#chosen) + count : this.list.last;
    const index = Math.max(0, Math.min(items.length - 1, from));
    if (index < items.length - 1) this.told.stream().follow(false);
    this.#choose(items[index]);
    this.list.reveal(index);
  }

  #choose(line) {
    this.#chosen = line;
    this.told.chosen(line);
    this.list.draw();
  }

  #row() {
    const parts = ["time", "level", "device", "source", "message"].map((name) => h("span", { class: name }));
    const row = h("div", { class: "row", role: "option", id: id(this.name), "data-test": "log-line" }, parts);
    [row.time, row.level, row.device, row.source, row.message] = parts;
    row.time.dataset.moves = "";
    row.addEventListener("click", () => {
      // Who marks text to copy it does not want to open it.
      if (document.getSelection().isCollapsed && row.line) this.#click(row.line);
    });
    return row;
  }

  #click(line) {
    this.#choose(line);
    this.told.open(line);
  }

  #show(row, index) {
    const line = this.#lines.items[index];
    const isChosen = this.#chosen !== null && compare(line, this.#chosen) === 0;
    if (row.line !== line || row.version !== this.#version) {
      row.line = line;
      row.version = this.#version;
      this.#write(row, line);
    }
    if (isChosen) this.scroller.setAttribute("aria-activedescendant", row.id);
    row.setAttribute("aria-selected", String(isChosen));
    row.setAttribute("aria-posinset", String(index + 1));
    row.setAttribute("aria-setsize", "-1");
  }

  #write(row, line) {
    row.className = `row is-${line.level.toLowerCase()}`;
    row.time.textContent = clock(Date.parse(line.time), settings.utc);
    row.level.textContent = line.level;
    row.device.textContent = visible(line.device);
    row.source.textContent = visible(line.source);
    const { text, before, after } = excerpt(line.message, this.#pattern, IN_ROW);
    fill(row.message, before && h("span", { class: "cut" }, "… "), shown(pieces(text, this.#pattern)), after && h("span", { class: "cut" }, " …"));
  }

  #moved() {
    const stream = this.told.stream();
    const { first, last } = this.list;
    const line = this.#lines.items[first];
    this.day.textContent = line ? `${day(Date.parse(line.time), settings.utc)}${settings.utc ? " UTC" : ""}` : "";
    if (!this.#chosen) this.scroller.removeAttribute("aria-activedescendant");
    if (first < NEAR) stream.more("up");
    if (!stream.following && this.#lines.length - last < NEAR) stream.more("down");
    this.told.moved();
  }

  /** Whoever scrolls away from the end wants to read; whoever comes back to it, to follow. */
  #watch() {
    const { scroller } = this;
    const leave = () => {
      if (!this.list.isAtEnd || scroller.scrollTop > 0) this.told.stream().follow(false);
    };
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && leave(), { passive: true });
    scroller.addEventListener("touchstart", () => (this.#touched = true), { passive: true });
    scroller.addEventListener("touchmove", () => this.told.stream().following && leave(), { passive: true });
    scroller.addEventListener("touchend", () => (this.#touched = false), { passive: true });
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
  }

  #scrolled() {
    const stream = this.told.stream();
    if (!this.list.isAtEnd && stream.following) stream.follow(false);
    else if (this.list.isAtEnd && !stream.lines.moreDown && !this.#touched && !stream.paused) stream.follow(true);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowDown: () => this.step(1),
      ArrowUp: () => this.step(-1),
      PageDown: () => this.step(this.list.page),
      PageUp: () => this.step(-this.list.page),
      Home: () => this.step(-this.#lines.length),
      End: () => this.told.end(),
      Enter: () => this.#chosen && this.told.open(this.#chosen),
      " ": () => this.#chosen && this.told.open(this.#chosen),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}
