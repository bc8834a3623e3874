// The lines that are held: all events that match between two places, in order, and nothing else. It is cut
// at either end when it grows too large, and knows whether there is more. No DOM.

import { compare } from "./place.js";

/** @typedef {import("./place.js").Line} Line */

/** Most lines that are held. */
export const MOST_LINES = 100_000;
/** Most memory that they take, by estimate, in bytes. */
export const MOST_BYTES = 64 * 1024 * 1024;
/** The share that is cut at a time beyond what has to be, so that not every event moves everything. */
const SLACK = 0.02;
/** Most arrivals that are kept while a page below is on its way. */
const MOST_JOINING = 5000;

/** About how much memory a line takes. */
export function weight(line) {
  const attributes = line.attributes ? JSON.stringify(line.attributes).length : 0;
  return 400 + 2 * (line.message.length + attributes);
}

export class Lines {
  /** @type {Line[]} */
  items = [];
  bytes = 0;
  /** There are matching events before the first. */
  moreUp = false;
  /** There are matching events behind the last, and the tail does not go on from here. */
  moreDown = false;
  /** Events that arrived before the first line, where they belong by their time. */
  late = 0;
  #joining = null;

  constructor(mostLines = MOST_LINES, mostBytes = MOST_BYTES) {
    this.mostLines = mostLines;
    this.mostBytes = mostBytes;
  }

  get length() {
    return this.items.length;
  }

  get first() {
    return this.items[0];
  }

  get last() {
    return this.items[this.items.length - 1];
  }

  /** Index of the first line that is not before a place. */
  indexOf(place) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.items[middle], place) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Begins anew with the lines of a page, oldest first. */
  reset(lines, { moreUp, moreDown }) {
    this.items = lines;
    this.bytes = lines.reduce((sum, line) => sum + weight(line), 0);
    this.moreUp = moreUp;
    this.moreDown = moreDown;
    this.late = 0;
    this.#joining = null;
  }

  /**
   * Takes what the tail brings, whatever its order. What is not between the ends that are held is counted
   * and left to a later page.
   * @param {Line[]} lines
   * @param {boolean} following  Whether room is made at the beginning rather than the end closed.
   * @returns {number} how many of them are behind the last line: shown there, or left out
   */
  arrive(lines, following) {
    let behind = 0;
    for (const line of lines) {
      const last = this.last;
      const isBehind = !last || compare(line, last) > 0;
      if (isBehind) behind += 1;
      if (isBehind && this.moreDown) this.#join(line);
      else if (isBehind) this.#push(line);
      else if (this.moreUp && compare(line, this.first) < 0) this.late += 1;
      else this.#insert(line);
    }
    if (this.#isFull()) {
      if (following) this.#cutTop();
      else this.#cutBottom();
    }
    return behind;
  }

  /** Puts a page of earlier lines (oldest first) before the others. */
  prepend(lines, moreUp) {
    this.items = lines.concat(this.items);
    for (const line of lines) this.bytes += weight(line);
    this.moreUp = moreUp;
    if (!moreUp) this.late = 0;
    if (this.#isFull()) this.#cutBottom();
  }

  /** A page of later lines is asked for: what arrives from now on may be missing in it. */
  startJoin() {
    this.#joining = [];
  }

  /** Puts that page behind the others. Without more behind it the tail goes on from there. */
  append(lines, moreDown) {
    for (const line of lines) this.#push(line);
    const joining = this.#joining;
    this.#joining = null;
    this.moreDown = moreDown || joining === null || joining.length >= MOST_JOINING;
    if (!this.moreDown) for (const line of joining) this.#insert(line);
    if (this.#isFull()) this.#cutTop();
  }

  /** Removes the lines of a device: they are forgotten. */
  remove(device) {
    this.items = this.items.filter((line) => line.device !== device);
    this.bytes = this.items.reduce((sum, line) => sum + weight(line), 0);
  }

  #join(line) {
    if (this.#joining && this.#joining.length < MOST_JOINING) this.#joining.push(line);
  }

  #push(line) {
    if (this.last && compare(line, this.last) <= 0) return this.#insert(line);
    this.items.push(line);
    this.bytes += weight(line);
  }

  #insert(line) {
    const index = this.indexOf(line);
    const there = this.items[index];
    if (there && compare(there, line) === 0) return;
    this.items.splice(index, 0, line);
    this.bytes += weight(line);
  }

  #isFull() {
    return this.items.length > this.mostLines || (this.bytes > this.mostBytes && this.items.length > 1);
  }

  #cutTop() {
    const most = Math.ceil(this.mostLines * (1 - SLACK));
    let cut = Math.max(0, this.items.length - most);
    let bytes = this.bytes;
    for (let at = 0; at < cut; at += 1) bytes -= weight(this.items[at]);
    while (bytes > this.mostBytes && cut < this.items.length - 1) bytes -= weight(this.items[cut++]);
    if (cut === 0) return;
    this.items.splice(0, cut);
    this.bytes = bytes;
    this.moreUp = true;
  }

  #cutBottom() {
    const most = Math.ceil(this.mostLines * (1 - SLACK));
    let keep = Math.min(this.items.length, most);
    let bytes = this.bytes;
    for (let at = keep; at < this.items.length; at += 1) bytes -= weight(this.items[at]);
    while (bytes > this.mostBytes && keep > 1) bytes -= weight(this.items[--keep]);
    if (keep === this.items.length) return;
    this.items.length = keep;
    this.bytes = bytes;
    this.moreDown = true;
  }
}
