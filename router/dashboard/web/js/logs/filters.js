// The conditions of the log page: search, level, names, filter and time. Every change is a new question.

import { call } from "../api.js";
import { button, fill, h, icon, id } from "../dom.js";
import { LEVELS } from "../question.js";
import { settings } from "../settings.js";
import { boundTime, inputText, inputTime, moment, spanOf } from "../time.js";

/** After a key the rest of a word may follow, ms. */
const TYPING = 350;
const RANGES = [["", "Any time"], ["15m", "Last 15 minutes"], ["1h", "Last hour"], ["6h", "Last 6 hours"], ["1d", "Last day"], ["7d", "Last 7 days"]];

export class Filters {
  #timer = 0;
  /** What is written since a field was entered is one step in the browser's history. */
  #isWritten = false;

  /**
   * @param {(change: Partial<import("../question.js").Question>, replace?: boolean) => void} ask
   */
  constructor(ask) {
    this.ask = ask;
    this.search = this.#text("text", "Search", "Search messages", { "data-test": "search", type: "search", class: "search" });
    this.regex = this.#toggle("regex", ".*", "Regular expression");
    this.exact = this.#toggle("exact", "Aa", "Capitals count");
    this.level = this.#levels();
    this.device = this.#names("device", "Device", (text) => this.#devices(text));
    this.group = this.#names("group", "Group", () => this.#groups());
    this.source = this.#names("source", "Source", async () => this.sources?.() ?? []);
    this.filter = this.#text("filter", "Filter", "http.status >= 500 and user = ann", { class: "mono" });
    this.range = this.#range();
    this.count = h("span", { class: "badge", hidden: true });
    this.more = h("div", { class: "conditions", id: id("conditions") }, this.device.whole, this.group.whole, this.source.whole, this.filter.whole);
    this.toggle = h(
      "button",
      { type: "button", class: "more-conditions", "aria-expanded": "false", "aria-controls": this.more.id, onclick: () => this.#open() },
      icon("filter"), h("span", null, "Conditions"), this.count,
    );
    const searchBox = h("div", { class: "search-box" }, icon("search"), this.search.input, this.exact, this.regex);
    this.element = h("form", { class: "filters", role: "search", "aria-label": "Conditions", onsubmit: (event) => this.#submit(event) },
      h("div", { class: "filters-first" }, searchBox, this.level, this.range, this.toggle), this.more);
  }

  /** Shows a question; the field where somebody writes stays as it is, unless they went back to another. */
  show(question, isBack = false) {
    this.question = question;
    const put = (input, value) => {
      if (document.activeElement !== input || value === "" || isBack) input.value = value;
    };
    for (const name of ["device", "group", "source", "filter"]) put(this[name].input, question[name]);
    put(this.search.input, question.text);
    for (const name of ["regex", "exact"]) this[name].setAttribute("aria-pressed", String(question[name]));
    for (const radio of this.level.querySelectorAll("input")) radio.checked = radio.value === question.level;
    const count = ["device", "group", "source", "filter"].filter((name) => question[name]).length;
    this.count.textContent = String(count);
    this.count.hidden = count === 0;
    this.#name();
  }

  focus() {
    this.search.input.focus();
    this.search.input.select();
  }

  #open() {
    const open = this.element.classList.toggle("is-open");
    this.toggle.setAttribute("aria-expanded", String(open));
  }

  #submit(event) {
    event.preventDefault();
    this.#take();
  }

  #text(name, label, placeholder, props) {
    const input = h("input", {
      type: "text", placeholder, autocomplete: "off", spellcheck: "false", autocapitalize: "off", maxlength: 900, "aria-label": label, ...props,
      oninput: () => this.#later(), onchange: () => this.#take(), onfocus: () => (this.#isWritten = false),
    });
    input.dataset.name = name;
    return { input, whole: h("label", { class: `field field-${name}` }, h("span", null, label), input) };
  }

  #names(name, label, suggest) {
    const list = h("datalist", { id: id(name) });
    const field = this.#text(name, label, "any", { list: list.id });
    const offer = async () => {
      const found = await suggest(field.input.value.split(",").pop().trim()).catch(() => []);
      const before = field.input.value.split(",").slice(0, -1);
      fill(list, found.map((value) => h("option", { value: [...before, value].join(",") })));
    };
    field.input.addEventListener("focus", offer);
    field.input.addEventListener("input", () => {
      clearTimeout(field.timer);
      field.timer = setTimeout(offer, TYPING);
    });
    field.whole.append(list);
    return field;
  }

  async #devices(text) {
    const query = /^[\w.:-]+$/.test(text) ? `name ~ "${text}*"` : "";
    const { items } = await call("devices", { query, limit: 20 });
    return items.map((item) => item.device);
  }

  async #groups() {
    const { items } = await call("groups", { limit: 200 });
    return items.map((item) => item.name);
  }

  #toggle(name, text, label) {
    return h("button", {
      type: "button", class: "toggle", title: label, "aria-label": label, "aria-pressed": "false",
      onclick: () => this.ask({ [name]: !this.question[name] }),
    }, text);
  }

  #levels() {
    const name = id("level");
    const choice = (level) => h("label", { class: `is-${level}` },
      h("input", { type: "radio", name, value: level === "debug" ? "" : level, onchange: (event) => this.ask({ level: event.target.value }) }),
      h("span", null, level === "debug" ? "All" : level === "error" ? "Error" : `${level[0].toUpperCase()}${level.slice(1)}+`));
    return h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "Least level"), LEVELS.map(choice));
  }

  #range() {
    this.rangeName = h("span", { "data-moves": true });
    const list = h("div", { class: "menu range-menu", popover: "auto", id: id("range") });
    const open = h("button", { type: "button", class: "range", popovertarget: list.id, "aria-haspopup": "dialog" }, this.rangeName);
    list.addEventListener("beforetoggle", (event) => event.newState === "open" && this.#fillRange(list, open));
    return h("div", { class: "range-box" }, open, list);
  }

  #fillRange(list, open) {
    const box = open.getBoundingClientRect();
    list.style.top = `${box.bottom + 4}px`;
    list.style.right = `${Math.max(8, window.innerWidth - box.right)}px`;
    const now = Date.now();
    const { since, until } = this.question;
    const bound = (text) => (text ? inputText(boundTime(text, now), settings.utc) : "");
    const from = h("input", { type: "datetime-local", step: "1", value: bound(since) });
    const to = h("input", { type: "datetime-local", step: "1", value: bound(until) });
    const choose = (change) => {
      list.hidePopover();
      this.ask(change);
    };
    fill(list,
      RANGES.map(([span, name]) => h("button", {
        type: "button", class: "item", "aria-pressed": String(since === span && !until), onclick: () => choose({ since: span, until: "" }),
      }, name)),
      h("label", { class: "field" }, h("span", null, `From${settings.utc ? " (UTC)" : ""}`), from),
      h("label", { class: "field" }, h("span", null, `Until${settings.utc ? " (UTC)" : ""}`), to),
      button("Show", { class: "primary", onclick: () => choose({ since: rfc(from.value), until: rfc(to.value) }) }));
  }

  #name() {
    const { since, until } = this.question;
    const now = Date.now();
    const preset = RANGES.find(([span]) => span === since);
    const shown = (text) => moment(boundTime(text, now), settings.utc, now);
    let name = preset && !until ? preset[1] : null;
    name ??= until ? `${since ? shown(since) : "the beginning"} – ${shown(until)}` : spanOf(since) === null ? `since ${shown(since)}` : `Last ${since}`;
    this.rangeName.textContent = name;
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#take(), TYPING);
  }

  #take() {
    clearTimeout(this.#timer);
    const change = { text: this.search.input.value };
    for (const name of ["device", "group", "source", "filter"]) change[name] = this[name].input.value.trim();
    if (Object.entries(change).every(([name, value]) => this.question[name] === value)) return;
    this.ask(change, this.#isWritten);
    this.#isWritten = true;
  }
}

function rfc(text) {
  const ms = inputTime(text, settings.utc);
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString();
}
