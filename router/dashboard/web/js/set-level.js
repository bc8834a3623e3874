// The dialogs that set and take away levels of the default, groups and devices, and what a level looks like.

import { call, part } from "./api.js";
import { button, fill, h, id } from "./dom.js";
import { LEVELS, parseSources, sourcesText } from "./levels.js";
import { settings } from "./settings.js";
import { dialog, note, problemBox } from "./tell.js";
import { visible } from "./text.js";
import { inputText, inputTime, moment, relative } from "./time.js";

const SPANS = [["", "For good"], ["900", "15 minutes"], ["3600", "1 hour"], ["14400", "4 hours"], ["86400", "1 day"], ["until", "Until a time …"]];

/** @typedef {{kind: string, name?: string}} Target  `default`, `group`, `device` and so on. */

export const targetText = ({ kind, name }) => (kind === "default" ? "the default" : `${kind} ${visible(name)}`);
const pathOf = (list, { kind, name }) => `${list}/${kind === "default" ? kind : `${kind}/${part(name)}`}`;

/** A level in its colour. */
export const levelText = (level) => h("span", { class: `level is-${level.toLowerCase()}` }, level);

/** When a temporary level ends: kept up to date by `tick`. */
export function ending(until) {
  const ms = Date.parse(until);
  return h("time", { datetime: until, "data-moves": true, "data-ends": String(ms), title: until }, endText(ms));
}

const endText = (ms) => `until ${moment(ms, settings.utc, Date.now())}, ${relative(ms, Date.now())}`;

/** Brings all ends within an element up to date. */
export function tick(root) {
  for (const element of root.querySelectorAll("[data-ends]")) {
    const text = endText(Number(element.dataset.ends));
    if (element.textContent !== text) element.textContent = text;
  }
}

/**
 * Asks for a level and sets it.
 * @param {Target} target
 * @param {{level?: string, sources?: Record<string, string>}} now  What is set.
 * @returns {Promise<boolean>} whether something was set
 */
export async function setLevel(target, now = {}) {
  const done = await dialog(`Level of ${targetText(target)}`, (close) => {
    const name = id("level");
    const levels = h("fieldset", { class: "levels" }, h("legend", null, "Level"), LEVELS.map((level) => h("label", { class: "check" },
      h("input", { type: "radio", name, value: level, checked: level === (now.level ?? "DEBUG") }), levelText(level), h("span", { class: "dim" }, MEANING[level]))));
    const span = h("select", { onchange: () => show() }, SPANS.map(([value, text]) => h("option", { value }, text)));
    const until = h("input", { type: "datetime-local", step: "1", value: inputText(Date.now() + 3_600_000, settings.utc) });
    const untilField = h("label", { class: "field" }, h("span", null, `Until${settings.utc ? " (UTC)" : ""}`), until);
    const sources = h("input", { type: "text", class: "mono", placeholder: "nginx=ERROR, app=DEBUG", value: sourcesText(now.sources), spellcheck: "false", autocomplete: "off" });
    const spanField = h("label", { class: "field" }, h("span", null, "For how long"), span);
    const problem = problemBox();
    const show = () => (untilField.hidden = span.value !== "until");
    show();
    const save = button("Set level", { class: "primary", type: "submit" });
    const submit = async (event) => {
      event.preventDefault();
      save.disabled = true;
      try {
        const level = levels.querySelector("input:checked").value;
        await put(target, { level, span: span.value, until: until.value, sources: parseSources(sources.value) });
        close(true);
      } catch (error) {
        problem.show(error);
        save.disabled = false;
      }
    };
    // Principals, addresses and sources have no temporary levels.
    spanField.hidden = !["default", "group", "device"].includes(target.kind);
    return [h("form", { class: "form", onsubmit: submit }, levels, spanField, untilField,
      h("label", { class: "field" }, h("span", null, "Other levels of single sources"), sources), problem,
      h("footer", null, button("Cancel", { onclick: () => close(false) }), save))];
  });
  if (done) note(`The level of ${targetText(target)} is set.`);
  return done === true;
}

const MEANING = { DEBUG: "everything", INFO: "no debug", WARN: "warnings and errors", ERROR: "errors alone", DISABLED: "nothing" };

function put(target, { level, span, until, sources }) {
  if (span === "") return call(pathOf("levels", target), {}, { method: "PATCH", body: { level, sources: Object.keys(sources).length > 0 ? sources : null } });
  const end = inputTime(until, settings.utc);
  if (span === "until" && Number.isNaN(end)) throw new Error("Until: give a day and a time.");
  const body = span === "until" ? { level, until: new Date(end).toISOString(), sources } : { level, for_s: Number(span), sources };
  return call(pathOf("overrides", target), {}, { method: "PUT", body });
}

/** Takes a level away, settings beside it stay. */
export const removeLevel = (target) => call(pathOf("levels", target), {}, { method: "PATCH", body: { level: null, sources: null } });

/** Ends a temporary level. */
export const endOverride = (target) => call(pathOf("overrides", target), {}, { method: "DELETE" });

/**
 * Shows why a device has its level, rule by rule.
 * @param {HTMLElement} box
 */
export async function explain(box, device, source, signal) {
  const explained = await call("explain", { device, source }, { signal });
  const asked = explained.rules.filter((rule) => rule.outcome !== "absent" && rule.outcome !== "unknown");
  const rest = explained.rules.length - asked.length;
  fill(box,
    h("p", { class: "answer" }, levelText(explained.level), " ", visible(explained.why)),
    h("ol", { class: "rules" }, asked.map((rule) => h("li", { class: rule.outcome === "won" ? "has-won" : null },
      h("span", { class: "rule-name" }, visible(rule.topic ?? "built in")), rule.level ? levelText(rule.level) : h("span", { class: "dim" }, "–"),
      h("span", { class: "dim" }, visible(rule.why), rule.by ? ` (${visible(rule.by)})` : "")))),
    rest > 0 && h("p", { class: "dim" }, `${rest} other rules have nothing to say of it.`),
    (explained.problems ?? []).map((problem) => h("p", { class: "problem" }, visible(`${problem.topic}: ${problem.reason}`))));
}
