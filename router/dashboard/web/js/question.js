// What a log page asks, and how that stands in its address and goes to the API. No DOM.

import { parsePlace } from "./place.js";
import { quoted } from "./text.js";
import { spanOf } from "./time.js";

/**
 * @typedef {object} Question
 * @property {string} text  What is searched for in messages.
 * @property {boolean} regex  It is a regular expression.
 * @property {boolean} exact  Capitals count.
 * @property {string} level  This level and what is worse; "" for all.
 * @property {string} device  Names divided by commas, as all three.
 * @property {string} group
 * @property {string} source
 * @property {string} filter  A condition in the language of routes.
 * @property {string} since  RFC 3339, or a span before now like `2h`; "" for none.
 * @property {string} until  RFC 3339; "" for an open end.
 * @property {string} span  What the histogram shows without `since`.
 * @property {string} at  The place that is looked at; "" for the end.
 * @property {string} event  The place of the event that is open.
 */

export const LEVELS = ["debug", "info", "warn", "error"];
const USUAL_SPAN = "1h";
const TEXTS = ["device", "group", "source", "filter"];

/** @returns {Question} the question of an address; what cannot be read is left out */
export function parse(search) {
  const params = new URLSearchParams(search);
  const text = (name) => params.get(name)?.trim() ?? "";
  const place = (name) => (parsePlace(text(name)) ? text(name) : "");
  const time = (name) => (spanOf(text(name)) !== null || !Number.isNaN(Date.parse(text(name))) ? text(name) : "");
  const level = text("level").toLowerCase();
  return {
    text: params.get("q") ?? "",
    regex: params.has("re"),
    exact: params.has("case"),
    level: LEVELS.includes(level) && level !== "debug" ? level : "",
    device: names(text("device")),
    group: names(text("group")),
    source: names(text("source")),
    filter: text("filter"),
    since: time("since"),
    until: spanOf(text("until")) === null ? time("until") : "",
    span: spanOf(text("span")) === null ? USUAL_SPAN : text("span"),
    at: place("at"),
    event: place("event"),
  };
}

/** Names divided by commas, without gaps. */
export const names = (text) => text.split(",").map((name) => name.trim()).filter(Boolean).join(",");

/** The address of a question, beginning with `?`, or nothing. */
export function format(question) {
  const params = new URLSearchParams();
  if (question.text) {
    params.set("q", question.text);
    if (question.regex) params.set("re", "1");
    if (question.exact) params.set("case", "1");
  }
  if (question.level) params.set("level", question.level);
  for (const name of [...TEXTS, "since", "until"]) if (question[name]) params.set(name, question[name]);
  if (question.span !== USUAL_SPAN && !question.since) params.set("span", question.span);
  for (const name of ["at", "event"]) if (question[name]) params.set(name, question[name]);
  const text = params.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return text ? `?${text}` : "";
}

/** The conditions as parameters of the API; times only if wanted. */
export function conditions(question, times = true) {
  const params = {};
  if (question.text) {
    const pattern = question.regex ? question.text : quoted(question.text);
    params.grep = question.exact ? pattern : `(?i)${pattern}`;
  }
  for (const name of ["level", ...TEXTS]) if (question[name]) params[name] = question[name];
  if (times) for (const name of ["since", "until"]) if (question[name]) params[name] = question[name];
  return params;
}

/** Whether two questions are for the same events, wherever one looks among them. */
export function isSame(a, b) {
  return JSON.stringify(conditions(a)) === JSON.stringify(conditions(b));
}

/** Whether events that arrive belong to it. */
export const isOpen = (question) => question.until === "";

/** How many conditions narrow it, times aside. */
export const narrowed = (question) => Object.keys(conditions(question, false)).length;

/** The same place with other conditions: where one looks stays, what was open too. */
export const changed = (question, change) => ({ ...question, at: "", event: "", ...change });
