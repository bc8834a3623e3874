// What a log page holds of the events it asks for: pages of history on both sides, and the tail at the end. It
// keeps to one rule: what is held is everything that matches between its first and last line.

import { call, insist } from "../api.js";
import { Lines } from "../lines.js";
import { compare, cursorBefore, lineOf, parsePlace, placeText } from "../place.js";
import { conditions, isOpen } from "../question.js";
import { Tail } from "../tail.js";

/** Lines of a page, and of the first that is shown. */
const PAGE = 1000;
const FIRST = 300;
/** As many are looked for before something is shown as found. */
const ENOUGH = 60;
/** So long the first page waits for the tail, ms, to begin right before it. */
const TAIL_WITHIN = 1500;

export class LogStream {
  lines = new Lines();
  /** New lines move the view. */
  following = true;
  /** Events behind the last line since they do not. */
  waiting = 0;
  /** `connecting`, `live`, `away`, or `none` where nothing can arrive. */
  connection = "none";
  /** A search is under way in this direction. */
  busy = { up: false, down: false };
  /** Where an unfinished search has come, a place; for who waits. */
  reached = null;
  /** Why a page is asked for again. */
  delayed = null;
  /** Somebody said so: coming to the end is no reason to follow it again. */
  paused = false;
  /** What was refused. */
  error = null;
  /** Counts beginnings: what was asked for before the last one is not taken. */
  #beginnings = 0;
  /** A new tail stands since the page below was asked for. */
  #isStale = false;
  #stop = new AbortController();
  #tail = null;
  #up = { cursor: null, first: null };
  #down = { cursor: null, last: null };

  /**
   * @param {import("../question.js").Question} question
   * @param {object} told
   * @param {(mutate: () => void) => void} told.around  Lines change within.
   * @param {() => void} told.changed  Anything else did.
   * @param {(lines: object[]) => void} told.arrived
   */
  constructor(question, told) {
    this.question = question;
    this.told = told;
    this.following = isOpen(question) && !question.at;
  }

  close() {
    this.#stop.abort();
    this.#tail?.close();
  }

  /** Begins to read. */
  async start() {
    this.busy.down = true;
    this.told.changed();
    this.lines.reset([], { moreUp: true, moreDown: true });
    if (isOpen(this.question)) await this.#openTail();
    if (this.#stop.signal.aborted) return;
    const place = parsePlace(this.question.at);
    await this.#guarded("down", (isMine) => (place ? this.#around(place, isMine) : this.#newest(isMine)));
  }

  #openTail() {
    this.connection = "connecting";
    return new Promise((resolve) => {
      setTimeout(resolve, TAIL_WITHIN);
      this.#tail = new Tail(conditions(this.question), {
        open: (isNew) => {
          this.connection = "live";
          // What came before a new stream may be missing behind the last line.
          if (isNew && this.#beginnings > 0) this.#missed();
          resolve();
          this.told.changed();
        },
        lines: (lines) => this.#arrive(lines),
        away: () => {
          this.connection = "away";
          resolve();
          this.told.changed();
        },
        refused: (error) => {
          this.connection = "none";
          this.error ??= error;
          resolve();
          this.told.changed();
        },
      });
    });
  }

  #missed() {
    this.#isStale = this.busy.down;
    if (this.#isStale) return;
    if (this.following) this.restart();
    else this.lines.moreDown = true;
  }

  #arrive(lines) {
    this.told.around(() => {
      const behind = this.lines.arrive(lines, this.following);
      if (!this.following) this.waiting += behind;
    });
    this.told.arrived(lines);
  }

  /** Stops or begins to go along with what arrives. */
  follow(on) {
    if (this.following === on || (on && !isOpen(this.question))) return;
    this.following = on;
    this.waiting = 0;
    if (on && this.lines.moreDown) this.restart();
    else this.told.changed();
  }

  /** Holds nothing and begins at the end. */
  restart() {
    this.question = { ...this.question, at: "" };
    this.following = isOpen(this.question);
    this.waiting = 0;
    this.busy.up = false;
    this.#beginnings += 1;
    this.told.around(() => this.lines.reset([], { moreUp: true, moreDown: true }));
    this.#guarded("down", (isMine) => this.#newest(isMine));
  }

  /** Reads a page more, unless there is none or one is on its way. */
  more(direction) {
    const there = direction === "up" ? this.lines.moreUp : this.lines.moreDown;
    const isFirst = this.lines.length === 0 && this.busy.down;
    if (!there || isFirst || this.busy[direction] || this.error) return;
    this.#guarded(direction, (isMine) => (direction === "up" ? this.#older(isMine) : this.#newer(isMine)));
  }

  async #guarded(direction, work) {
    this.#beginnings ||= 1;
    const mine = this.#beginnings;
    const isMine = () => mine === this.#beginnings;
    this.busy[direction] = true;
    this.told.changed();
    try {
      await work(isMine);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      if (isMine()) this.error = error;
    }
    if (!isMine()) return;
    this.busy[direction] = false;
    this.reached = null;
    this.delayed = null;
    this.told.changed();
    if (direction === "down" && this.#isStale) this.#missed();
  }

  /** A page, asked for until it comes: what was found before it is kept. */
  async #page(order, cursor, limit) {
    const { signal } = this.#stop;
    const params = { ...conditions(this.question), order, cursor, limit };
    const page = await insist(() => call("logs", params, { signal }), signal, (error) => {
      this.delayed = error;
      this.told.changed();
    });
    this.delayed = null;
    return page;
  }

  /** Pages until some lines are found or there are no more. */
  async #pages(order, from, limit) {
    const lines = [];
    let cursor = from;
    do {
      const page = await this.#page(order, cursor, limit);
      lines.push(...page.items.map(lineOf));
      cursor = page.next;
      this.reached = cursor && lines.length < ENOUGH ? parsePlace(cursor) : null;
      if (this.reached) this.told.changed();
    } while (cursor && lines.length < ENOUGH);
    if (order === "newest") lines.reverse();
    return { lines, cursor };
  }

  async #newest(isMine) {
    this.lines.startJoin();
    const { lines, cursor } = await this.#pages("newest", undefined, FIRST);
    if (!isMine()) return;
    this.told.around(() => {
      this.#joined(lines, null);
      this.#setUp(cursor);
    });
    this.#goOn();
  }

  async #around(place, isMine) {
    this.lines.startJoin();
    const [before, after] = await Promise.all([
      this.#pages("newest", placeText(place), FIRST),
      this.#pages("oldest", cursorBefore(place), FIRST),
    ]);
    if (!isMine()) return;
    this.told.around(() => {
      this.#joined(before.lines.concat(after.lines), after.cursor);
      this.#setUp(before.cursor);
    });
  }

  async #older(isMine) {
    const { first } = this.lines;
    const known = this.#up.cursor && this.#up.first === first;
    const cursor = known ? this.#up.cursor : first && placeText(first);
    const { lines, cursor: next } = await this.#pages("newest", cursor, PAGE);
    if (!isMine() || this.lines.first !== first) return;
    this.told.around(() => {
      this.lines.prepend(lines, Boolean(next));
      this.#setUp(next);
    });
  }

  async #newer(isMine) {
    const { last } = this.lines;
    const known = this.#down.cursor && this.#down.last === last;
    const cursor = known ? this.#down.cursor : last && placeText(last);
    this.lines.startJoin();
    const { lines, cursor: next } = await this.#pages("oldest", cursor, PAGE);
    if (!isMine() || this.lines.last !== last) return;
    this.told.around(() => this.#joined(lines, next));
    this.#goOn();
  }

  /** More arrived during a page than is kept meanwhile: whoever follows gets it page by page. */
  #goOn() {
    if (this.following && this.lines.moreDown) setTimeout(() => this.more("down"));
  }

  #joined(lines, next) {
    this.lines.append(lines, Boolean(next));
    this.#down = { cursor: next, last: this.lines.last };
  }

  #setUp(cursor) {
    this.lines.moreUp = this.lines.moreUp && Boolean(cursor);
    this.#up = { cursor, first: this.lines.first };
  }

  /** Index of the line at a place or behind it. */
  indexOf(place) {
    return this.lines.indexOf(place);
  }

  /** Whether a place is among what is held. */
  holds(place) {
    const { first, last } = this.lines;
    return Boolean(first) && compare(first, place) <= 0 && compare(place, last) <= 0;
  }
}
