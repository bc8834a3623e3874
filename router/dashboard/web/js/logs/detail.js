// An open event: its whole message, all its attributes, and what its device logged before and after it.

import { call, insist, part } from "../api.js";
import { button, fill, h, icon, id, shown } from "../dom.js";
import { compare, lineOf, placeText } from "../place.js";
import { format, parse } from "../question.js";
import { settings } from "../settings.js";
import { cut, pieces, visible } from "../text.js";
import { advice, announce, delayText, note } from "../tell.js";
import { clock, exact, relative } from "../time.js";

/** Characters of a message that are shown at first. */
const AT_FIRST = 1500;
/** Events of the same device around this one, on either side. */
const AROUND = 8;

export class Detail {
  #line = null;
  #stop = new AbortController();

  /**
   * @param {object} told
   * @param {() => void} told.closed
   * @param {(line: object) => void} told.open
   * @param {(condition: string) => void} told.narrow  Adds to the filter.
   */
  constructor(told) {
    this.told = told;
    this.title = h("h2", { id: id("event"), tabIndex: -1 });
    this.body = h("div", { class: "detail-body", tabIndex: 0, role: "group", "aria-label": "Event, in full" });
    this.element = h("aside", { class: "detail", "aria-labelledby": this.title.id, hidden: true },
      h("header", null, this.title, button("Close event", { icon: "close", quiet: true, class: "plain", onclick: () => this.close() })), this.body);
  }

  get isOpen() {
    return this.#line !== null;
  }

  /** @param {boolean} byUser  Who closed it goes on in the list; who asks something else is elsewhere. */
  close(byUser = true) {
    if (!this.#line) return;
    this.#line = null;
    this.#stop.abort();
    this.element.hidden = true;
    if (byUser) this.told.closed();
  }

  /** Shows an event; `pattern` is what is marked. */
  open(line, pattern) {
    if (this.#line && compare(this.#line, line) === 0 && this.pattern === pattern) return;
    this.#line = line;
    this.pattern = pattern;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.element.hidden = false;
    this.#draw(line);
    // On narrow screens it covers the list.
    if (getComputedStyle(this.element).position === "fixed") this.title.focus();
    this.#context(line, this.#stop.signal);
  }

  /** Shows it again: the way times are written has changed. */
  refresh() {
    const line = this.#line;
    this.#line = null;
    if (line) this.open(line, this.pattern);
  }

  #draw(line) {
    fill(this.title, h("span", { class: `level is-${line.level.toLowerCase()}` }, line.level), " ", h("span", null, visible(line.device)), h("span", { class: "dim" }, ` / ${visible(line.source)}`));
    this.context = h("div", { class: "context" }, h("p", { class: "dim" }, "Looking …"));
    fill(this.body, this.#message(line), this.#actions(line), this.#facts(line), this.#attributes(line),
      h("h3", null, `Around it on ${visible(line.device)}`), this.context);
    this.body.scrollTop = 0;
  }

  #message(line) {
    const box = h("pre", { class: "whole" });
    const whole = line.message;
    const text = cut(whole, AT_FIRST);
    fill(box, shown(pieces(text, this.pattern, true)));
    if (text.length === whole.length) return box;
    const more = button(`Show all ${whole.length.toLocaleString("en")} characters`, {
      class: "plain show-all",
      onclick: () => {
        fill(box, shown(pieces(whole, this.pattern, true)));
        more.remove();
      },
    });
    return [box, more];
  }

  #actions(line) {
    const here = parse("");
    const inContext = format({ ...here, device: line.device, at: placeText(line), event: placeText(line) });
    const json = () => JSON.stringify({ ...line, at: undefined, row: undefined, place: placeText(line) }, null, 2);
    return h("p", { class: "actions" },
      h("a", { class: "button", href: `/logs${inContext}` }, icon("logs"), h("span", null, "In its device's log")),
      button("Copy message", { onclick: () => copy(line.message, "The message") }),
      button("Copy JSON", { onclick: () => copy(json(), "The event") }));
  }

  #facts(line) {
    const now = Date.now();
    const time = (rfc) => [exact(rfc, settings.utc), h("span", { class: "dim", "data-moves": true }, ` ${relative(Date.parse(rfc), now)}`)];
    const late = Date.parse(line.received) - Date.parse(line.time);
    return h("dl", { class: "facts" },
      fact("Time", time(line.time), line.time_estimated && h("span", { class: "dim" }, " (estimated: the device did not know)")),
      fact("Received", time(line.received), late > 60_000 && h("span", { class: "dim" }, " (kept on the device until then)")),
      fact("Device", h("a", { href: `/devices/${part(line.device)}` }, visible(line.device))),
      fact("Source", this.#narrow("source", line.source)),
      fact("Severity", String(line.severity)),
      line.id && fact("Id", h("code", null, visible(line.id))),
      line.truncated && fact("Cut", "The device cut this event: it was too large."));
  }

  #attributes(line) {
    const entries = Object.entries(line.attributes ?? {});
    if (entries.length === 0) return null;
    return [h("h3", null, "Attributes"), h("dl", { class: "facts attributes" }, entries.map(([name, value]) => fact(visible(name), this.#narrow(name, value))))];
  }

  /** A value that can be made a condition. */
  #narrow(name, value) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const long = text.length > 300;
    const box = h("span", { class: "value" }, shown(pieces(cut(text, 300), null)), long && " …");
    const more = long && button("all", { class: "plain", onclick: () => fill(box, shown(pieces(text, null, true))) });
    const field = name === "source" ? name : /^[A-Za-z_][\w.-]*$/.test(name) ? `attributes.${name}` : `attributes.${quotedText(name)}`;
    const plain = ["string", "number", "boolean"].includes(typeof value) && text.length <= 200;
    return [box, more, plain && h("button", {
      type: "button", class: "plain narrower", title: `Only events with this ${visible(name)}`, "aria-label": `Only events with ${visible(name)} ${visible(text)}`,
      onclick: () => this.told.narrow(`${field} = ${quotedText(text)}`),
    }, icon("filter"))];
  }

  async #context(line, signal) {
    const { context } = this;
    const delayed = (error) => fill(context, h("p", { class: "dim" }, visible(delayText(error))));
    const page = (order) => insist(() => call("logs", { device: line.device, order, cursor: placeText(line), limit: AROUND }, { signal }), signal, delayed);
    try {
      const [before, after] = await Promise.all([page("newest"), page("oldest")]);
      const lines = [...before.items.reverse().map(lineOf), line, ...after.items.map(lineOf)];
      fill(context, lines.map((other) => this.#near(other, line)));
      announce(`Event of ${visible(line.device)} open`);
    } catch (error) {
      if (!signal.aborted) fill(context, h("p", { class: "dim", "data-test": "problem" }, advice(error)));
    }
  }

  #near(other, line) {
    const isIt = compare(other, line) === 0;
    return h("button", { type: "button", class: `near is-${other.level.toLowerCase()}`, "aria-current": isIt ? "true" : null, onclick: () => this.told.open(other) },
      h("span", { class: "time", "data-moves": true }, clock(Date.parse(other.time), settings.utc)),
      h("span", { class: "message" }, shown(pieces(cut(other.message, 300), null))));
  }
}

const fact = (name, ...value) => h("div", null, h("dt", null, name), h("dd", null, value));

/** A text as the filter language takes it. */
const quotedText = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    note(`${what} is copied.`);
  } catch {
    note("The browser does not let pages copy here; mark the text and copy it.", true);
  }
}
