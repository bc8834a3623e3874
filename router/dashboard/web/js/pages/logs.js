// The log page: conditions, histogram, lines, the open event, and what one can do with all of it.

import { call, insist, part, poll } from "../api.js";
import { spanWith, stepFor, wider, widerSpan } from "../bars.js";
import { button, fill, h } from "../dom.js";
import { Histogram } from "../histogram.js";
import { Detail, copy } from "../logs/detail.js";
import { Filters } from "../logs/filters.js";
import { download } from "../logs/download.js";
import { LogStream } from "../logs/stream.js";
import { LogView } from "../logs/view.js";
import { whole } from "../number.js";
import { parsePlace, placeOfTime, placeText, timeOfPlace } from "../place.js";
import { changed, conditions, format, isOpen, isSame, narrowed, parse } from "../question.js";
import * as settings from "../settings.js";
import { advice, announce, blank, confirm, delayText, failure, note } from "../tell.js";
import { matcher, visible } from "../text.js";
import { boundTime, moment, spanOf, spanText } from "../time.js";

/** Bars of the histogram at most, and how often they are counted anew while events arrive, ms. */
const BARS = 120;
const COUNT_EVERY = 10_000;
/** How often errors that arrive are read out, ms. */
const SAID_EVERY = 15_000;
/** Until the address follows where one looks, ms. */
const SETTLED = 400;

export const title = "Logs";

/** Builds the page. @param {HTMLElement} root @param {object} app see main.js */
export function mount(root, app) {
  return new LogPage(root, app);
}

class LogPage {
  #counting = null;
  #settled = 0;
  #rate = [];
  #wrong = 0;
  #said = 0;

  constructor(root, app) {
    this.app = app;
    this.filters = new Filters((change, replace) => this.#ask(change, replace));
    this.filters.sources = () => [...new Set(this.stream.lines.items.slice(-3000).map((line) => line.source))].sort();
    this.histogram = new Histogram({
      zoom: (from, until) => this.#ask({ since: new Date(from).toISOString(), until: new Date(until).toISOString() }),
      out: () => this.#zoomOut(),
      go: (time) => this.#go(placeOfTime(time)),
    });
    this.view = new LogView({
      stream: () => this.stream,
      open: (line) => this.#open(line),
      chosen: (line) => this.detail.isOpen && line && this.#open(line),
      moved: () => this.#moved(),
      end: () => this.#end(),
    });
    this.detail = new Detail({
      closed: () => {
        this.view.scroller.focus();
        this.#settle();
      },
      open: (line) => this.#show(line),
      narrow: (condition) => this.#ask({ filter: this.question.filter ? `(${this.question.filter}) and ${condition}` : condition }),
    });
    this.state = h("div", { class: "state" });
    this.bar = this.#bar();
    this.element = h("div", { class: "logs-page" }, h("h1", { class: "unseen" }, "Logs"), this.filters.element, this.histogram.element,
      h("div", { class: "split" }, h("div", { class: "log-box" }, this.view.element, this.state), this.detail.element), this.bar);
    fill(root, this.element);
    this.onSettings = () => {
      this.view.redraw();
      this.detail.refresh();
      this.filters.show(this.question);
      this.#counts();
    };
    settings.changes.addEventListener("changed", this.onSettings);
    this.ticking = setInterval(() => this.#tick(), 1000);
    this.question = parse(location.search);
    this.#begin();
    this.view.start();
  }

  /** The address has changed; by going back or on if so told. */
  update(isBack) {
    const question = parse(location.search);
    const same = isSame(question, this.question) && question.at === this.question.at;
    const span = question.span !== this.question.span;
    this.question = question;
    if (!same) this.#begin();
    else if (span) this.#counts();
    this.filters.show(question, isBack);
  }

  close() {
    this.stream.close();
    this.view.close();
    this.#counting?.abort();
    clearInterval(this.ticking);
    clearTimeout(this.#settled);
    settings.changes.removeEventListener("changed", this.onSettings);
  }

  /** Single keys that act here: see keys.js. */
  get keys() {
    return {
      "/": () => this.filters.focus(),
      p: () => this.#pause(),
      j: () => this.#step(1),
      k: () => this.#step(-1),
      G: () => this.#end(),
      h: () => this.histogram.focus(),
      "-": () => this.#zoomOut(),
      y: () => this.#link(),
      d: () => download(this.question),
      Escape: () => this.detail.close(),
    };
  }

  #step(by) {
    this.view.scroller.focus({ preventScroll: true });
    this.view.step(by);
  }

  #bar() {
    this.live = h("span", { class: "live", role: "status" });
    this.rate = h("span", { class: "rate", "data-moves": true });
    this.held = h("span", { class: "held", "data-moves": true });
    this.pause = button("Pause", { icon: "pause", "data-test": "pause", class: "pause", onclick: () => this.#pause() });
    this.clear = button("Clear log", { icon: "trash", "data-test": "clear", hidden: true, onclick: () => this.#clear() });
    return h("div", { class: "status-bar", role: "group", "aria-label": "Log" }, this.live, this.rate, this.held, h("span", { class: "grow" }), this.clear,
      button("Copy link", { icon: "link", onclick: () => this.#link() }),
      button("Download", { icon: "save", "data-test": "download", onclick: () => download(this.question) }), this.pause);
  }

  #ask(change, replace = false) {
    this.app.go(`/logs${format(changed(this.question, change))}`, { replace });
  }

  #begin() {
    this.stream?.close();
    this.#rate = [];
    this.detail.close(false);
    const { text, regex, exact } = this.question;
    const pattern = matcher({ text, regex, exact });
    const stream = new LogStream(this.question, {
      around: (mutate) => (this.stream === stream ? this.view.around(mutate) : mutate()),
      changed: () => this.stream === stream && this.#changed(),
      arrived: (lines) => this.stream === stream && this.#arrived(lines),
    });
    this.stream = stream;
    this.filters.show(this.question);
    const device = this.#device;
    this.app.setTitle(device ? `${device} · Logs` : "Logs");
    this.clear.hidden = !device || !this.app.mayClear();
    this.pattern = pattern;
    if (this.view.list) {
      this.view.unchoose();
      this.view.pattern = pattern;
      this.view.list.resize();
    } else queueMicrotask(() => (this.view.pattern = pattern));
    stream.start();
    this.#counts();
  }

  /** The device whose log this is, if it is one's. */
  get #device() {
    const { device } = this.question;
    return device && !device.includes(",") ? device : null;
  }

  #changed() {
    const { stream } = this;
    const isEmpty = stream.lines.length === 0;
    this.view.element.setAttribute("aria-busy", String(stream.busy.down || stream.busy.up));
    this.view.element.classList.toggle("is-busy", stream.busy.up && !isEmpty);
    if (!stream.error) fill(this.state, isEmpty ? this.#empty() : null);
    else if (this.failed !== stream.error) fill(this.state, this.#failed(stream.error));
    this.failed = stream.error;
    this.state.hidden = !stream.error && !isEmpty;
    if (!isEmpty && !stream.busy.down) this.#placed();
    this.#status();
    this.view.list?.draw();
  }

  /** Goes to the place that the address names, once what is around it is there. */
  #placed() {
    if (this.placedIn === this.stream || !this.view.list) return;
    this.placedIn = this.stream;
    const { at, event } = this.question;
    const place = parsePlace(event) ?? parsePlace(at);
    if (this.stream.following) return;
    if (!place) return this.view.toEnd();
    if (!event) {
      this.view.scroller.scrollTop = this.stream.indexOf(place) * this.view.list.rowHeight;
      return;
    }
    this.view.choose(place, "centre");
    if (this.view.chosen) this.#open(this.view.chosen);
  }

  #failed(error) {
    return failure(error,
      button("Try again", { onclick: () => this.#begin() }),
      narrowed(this.question) > 0 && button("Drop the conditions", { onclick: () => this.app.go("/logs") }));
  }

  #empty() {
    const { stream, question } = this;
    if (stream.busy.down) {
      const reached = stream.reached && timeOfPlace(stream.reached);
      const far = reached && Number.isFinite(reached) ? ` Back to ${moment(reached, settings.settings.utc, Date.now())} so far.` : "";
      const why = stream.delayed ? ` ${visible(delayText(stream.delayed))}` : "";
      return blank("Looking …", `The newest events that match are searched for.${far}${why}`);
    }
    const bounded = question.since !== "" || question.until !== "";
    const wait = isOpen(question) ? " What arrives shows here by itself." : "";
    if (narrowed(question) === 0 && !bounded) {
      return blank("Nothing is logged yet", `Events show here as soon as a device logs.${wait}`, h("pre", { class: "hint" }, "mosquitto_pub -t thinglog/logs/lamp-7/app -q 1 -m 'hello'"));
    }
    return blank("Nothing matches", `No event that is kept fits ${bounded ? "this time and these conditions" : "these conditions"}.${wait}`,
      bounded && button("Look at everything kept", { onclick: () => this.#ask({ since: "", until: "" }) }),
      narrowed(question) > 0 && button("Drop the conditions", { onclick: () => this.app.go(`/logs${format({ ...parse(""), since: question.since, until: question.until })}`) }));
  }

  #status() {
    const { stream } = this;
    const open = isOpen(this.question);
    const names = { live: stream.following ? "Live" : "Paused", connecting: "Connecting", away: "Reconnecting", none: open ? "Not live" : "History" };
    const name = names[stream.connection];
    if (this.live.textContent !== name) this.live.textContent = name;
    this.live.dataset.is = stream.connection === "live" && !stream.following ? "paused" : stream.connection;
    const waiting = stream.waiting > 0;
    this.pause.hidden = !open || Boolean(stream.error);
    this.pause.classList.toggle("is-waiting", !stream.following);
    const label = `${stream.following} ${stream.waiting}`;
    if (this.pause.dataset.label !== label) {
      this.pause.dataset.label = label;
      fill(this.pause, button("", { icon: stream.following ? "pause" : "down" }).firstChild, h("span", null, stream.following ? "Pause" : "Resume"), waiting && h("span", { class: "badge" }, whole(stream.waiting), h("span", { class: "unseen" }, " waiting")));
    }
    const late = stream.lines.late > 0 ? ` · ${whole(stream.lines.late)} late, further up` : "";
    this.held.textContent = `${whole(stream.lines.length)} line${stream.lines.length === 1 ? "" : "s"}${late}`;
  }

  #arrived(lines) {
    const now = performance.now();
    this.#rate.push([now, lines.length]);
    this.#wrong += lines.filter((line) => line.level === "ERROR").length;
    if (this.stream.lines.length > 0 && !this.state.hidden) this.#changed();
  }

  /** What goes by the second. */
  #tick() {
    const now = performance.now();
    const from = now - 5000;
    this.#rate = this.#rate.filter(([time]) => time > from);
    const rate = this.#rate.reduce((sum, [, count]) => sum + count, 0) / 5;
    this.rate.textContent = this.stream.connection === "live" ? `${rate >= 10 ? whole(rate) : rate.toFixed(1)}/s` : "";
    this.#status();
    if (this.#wrong > 0 && now - this.#said > SAID_EVERY && document.hasFocus()) {
      this.#said = now;
      announce(`${this.#wrong} new error${this.#wrong === 1 ? "" : "s"}`);
      this.#wrong = 0;
    }
  }

  #moved() {
    const { first, last } = this.view.inSight;
    this.histogram.inSight(first && Date.parse(first.time), last && Date.parse(last.time));
    this.#settle();
  }

  /** Has the address name what is looked at. */
  #settle() {
    this.#settled ||= setTimeout(() => {
      this.#settled = 0;
      if (this.stream.busy.down) return;
      const address_ = `/logs${format(this.#here())}`;
      if (location.pathname === "/logs" && `${location.pathname}${location.search}` !== address_) {
        history.replaceState(history.state, "", address_);
        this.question = parse(location.search);
      }
      this.#reach();
    }, SETTLED);
  }

  /** The question with the place that is looked at. */
  #here() {
    const { first } = this.view.inSight;
    const { chosen } = this.view;
    const at = this.stream.following || !first ? "" : placeText(first);
    return { ...this.question, at, event: this.detail.isOpen && chosen ? placeText(chosen) : "" };
  }

  /** The histogram reaches at least as far back as what is looked at. */
  #reach() {
    const { first } = this.view.inSight;
    if (!first || this.question.since) return;
    const age = Date.now() - Date.parse(first.time);
    const span = spanOf(this.question.span);
    if (age > span && !this.stream.following) this.#span(spanWith(age, span));
  }

  #span(span) {
    if (span === spanOf(this.question.span)) return;
    this.question = { ...this.question, span: spanText(span) };
    history.replaceState(history.state, "", `/logs${format(this.question)}`);
    this.#counts();
  }

  #open(line) {
    this.stream.follow(false);
    this.detail.open(line, this.pattern);
    this.#settle();
  }

  /** Opens an event that may be elsewhere. */
  #show(line) {
    const held = this.stream.holds(line) && this.stream.lines.items[this.stream.indexOf(line)];
    if (held && placeText(held) === placeText(line)) this.view.choose(line);
    this.#open(line);
  }

  #go(place) {
    const { question } = this;
    const target = parsePlace(place);
    if (this.stream.holds(target)) {
      this.stream.follow(false);
      this.view.scroller.scrollTop = this.stream.indexOf(target) * this.view.list.rowHeight;
    } else this.app.go(`/logs${format({ ...question, at: place, event: "" })}`);
  }

  #pause() {
    if (this.stream.following) {
      this.stream.paused = true;
      this.stream.follow(false);
    } else this.#end();
  }

  #end() {
    this.stream.paused = false;
    if (isOpen(this.question)) this.stream.follow(true);
    else if (this.stream.lines.moreDown) this.stream.restart();
    this.view.toEnd();
    this.#settle();
  }

  #zoomOut() {
    const { since, until, span } = this.question;
    const now = Date.now();
    if (!since && !until) return this.#span(widerSpan(spanOf(span)));
    const to = until ? Date.parse(until) : now;
    const range = wider(since ? boundTime(since, now) : to - spanOf(span), to, now);
    const live = range.until >= now - 1000;
    this.#ask(live ? { since: "", until: "", span: spanText(spanWith(now - range.from, 0)) } : { since: new Date(range.from).toISOString(), until: new Date(range.until).toISOString() });
  }

  /** Counts now, and again while events arrive. */
  #counts() {
    this.#counting?.abort();
    this.#counting = new AbortController();
    const { signal } = this.#counting;
    if (isOpen(this.question)) poll(() => this.#count(signal), COUNT_EVERY, signal, (error) => this.#uncounted(error));
    else insist(() => this.#count(signal), signal).catch((error) => signal.aborted || this.#uncounted(error));
  }

  async #count(signal) {
    const now = Date.now();
    const { since, until, span } = this.question;
    const to = until ? Date.parse(until) : now;
    const from = since ? boundTime(since, now) : to - spanOf(span);
    const step = stepFor(to - from, BARS);
    const params = { ...conditions(this.question, false), since: new Date(from).toISOString(), until: new Date(to).toISOString(), step: `${step / 1000}s` };
    const counts = await call("logs/counts", params, { signal });
    this.histogram.show(counts.items, { from, until: to, step, partial: counts.partial });
    this.#moved();
  }

  #uncounted(error) {
    this.histogram.clear(error.status === 400 ? "" : advice(error));
  }

  #link() {
    const here = this.#here();
    const { first } = this.view.inSight;
    const at = here.event || here.at || (first ? placeText(first) : "");
    const now = Date.now();
    const since = spanOf(here.since) === null ? here.since : new Date(boundTime(here.since, now)).toISOString();
    copy(new URL(`/logs${format({ ...here, since, at })}`, location.href).href, "A link to these lines");
  }

  async #clear() {
    const device = this.#device;
    const done = await confirm(`Clear the log of ${visible(device)}?`, "Everything that this device has logged so far is forgotten here, for everybody. Other destinations keep what they have. This cannot be undone.", "Clear log",
      () => call(`devices/${part(device)}/logs`, {}, { method: "DELETE" }));
    if (!done) return;
    note(`The log of ${visible(device)} is cleared.`);
    this.#begin();
  }
}
