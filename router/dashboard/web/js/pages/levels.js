// Groups and levels: the tree of groups, what is set and what is in force, temporary levels and their ends, and
// why a device has its level.

import { all, poll } from "../api.js";
import { button, fill, h } from "../dom.js";
import { fallback, inForce, sourcesText, tree } from "../levels.js";
import { whole } from "../number.js";
import { endOverride, ending, explain, levelText, removeLevel, setLevel, targetText, tick } from "../set-level.js";
import * as settings from "../settings.js";
import { blank, confirm, failure, note, problemBox } from "../tell.js";
import { visible } from "../text.js";

const EVERY = 5000;
const MOST_GROUPS = 5000;
const MOST_OTHERS = 500;

export const title = "Levels";

export function mount(root, app) {
  return new LevelsPage(root, app);
}

class LevelsPage {
  #stop = new AbortController();
  #told = "";
  /** Groups whose children are not shown. */
  #closed = new Set();

  constructor(root, app) {
    this.app = app;
    this.state = h("div");
    this.tree = h("div", { class: "tree", hidden: true });
    this.others = h("section", { class: "card", hidden: true });
    this.device = h("input", { type: "text", placeholder: "lamp-7", autocomplete: "off", spellcheck: "false", required: true });
    this.source = h("input", { type: "text", placeholder: "any", autocomplete: "off", spellcheck: "false" });
    this.why = h("div", { class: "explained" });
    const ask = h("form", { class: "bar", onsubmit: (event) => this.#explain(event) },
      h("label", { class: "field" }, h("span", null, "Device"), this.device), h("label", { class: "field" }, h("span", null, "Source"), this.source),
      button("Explain", { type: "submit", "data-test": "level-why" }));
    fill(root, h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", null, "Groups and levels")), this.state, this.tree, this.others,
      h("section", { class: "card" }, h("h2", null, "Why does a device have its level?"), ask, this.why)));
    this.onSettings = () => this.#load(true).catch(() => {});
    settings.changes.addEventListener("changed", this.onSettings);
    this.ticking = setInterval(() => tick(root), 1000);
    poll(() => this.#load(), EVERY, this.#stop.signal, (error) => this.#failed(error));
    fill(this.state, blank("Looking …"));
  }

  update() {}

  close() {
    this.#stop.abort();
    clearInterval(this.ticking);
    settings.changes.removeEventListener("changed", this.onSettings);
  }

  async #load(anew = false) {
    const options = { signal: this.#stop.signal };
    const [groups, levels, overrides] = await Promise.all([
      all("groups", MOST_GROUPS, options), all("levels", MOST_OTHERS, options), all("overrides", MOST_OTHERS, options),
    ]);
    // The default is the first of both lists, for those who may see it.
    const ofDefault = ({ items }) => items.find((item) => item.type === "default") ?? null;
    const [standard, standardOverride] = [ofDefault(levels), ofDefault(overrides)];
    const isOther = (item) => item.type !== "default" && item.type !== "group";
    const told = {
      groups: groups.items, moreGroups: groups.more, standard, standardOverride,
      levels: levels.items.filter((item) => isOther(item) && (item.level || item.sources)),
      overrides: overrides.items.filter(isOther), moreOthers: levels.more || overrides.more,
    };
    // What counts down by itself is no news, and whoever is at a button stays there.
    const text = JSON.stringify(told, (key, value) => (key === "for_s" ? undefined : value));
    if (text === this.#told && !anew) return;
    this.#told = text;
    this.fleet = { groups: new Map(told.groups.map((group) => [group.name, group])), standard, standardOverride };
    this.told = told;
    this.#show();
  }

  #failed(error) {
    fill(this.state, failure(error));
    this.tree.hidden = true;
  }

  #show() {
    const focused = document.activeElement?.dataset?.focus;
    fill(this.state, null);
    const rows = tree(this.fleet.groups);
    const hidden = (group) => (group.ancestors ?? []).some((above) => this.#closed.has(above));
    const list = rows.filter(({ group }) => !hidden(group)).map(({ group, depth }) => this.#group(group, depth));
    this.tree.hidden = false;
    fill(this.tree, h("table", { class: "levels" }, h("caption", { class: "unseen" }, "The default and groups, with their levels"),
      h("thead", null, h("tr", null, ["Group", "In force", "Set here", ""].map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "Actions"))))),
      h("tbody", null, this.app.mayChangeFleet() && this.#standard(), list)),
    rows.length === 0 && blank("There are no groups yet", "Groups give many devices a level at once:", h("pre", { class: "hint" }, "thinglog group create eu\nthinglog group add eu lamp-7")),
    this.told.moreGroups && h("p", { class: "dim" }, `Only the first ${whole(MOST_GROUPS)} groups are shown.`));
    this.#showOthers();
    if (focused) document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  #standard() {
    const { standard, standardOverride } = this.fleet;
    return this.#row({ target: { kind: "default" }, name: h("strong", null, "Default"), about: "all devices", set: standard, override: standardOverride, force: inForce(null, this.fleet, Date.now()), own: "default", depth: 0 });
  }

  #group(group, depth) {
    const parent = (group.children ?? []).length > 0;
    const open = !this.#closed.has(group.name);
    const fold = parent && h("button", {
      type: "button", class: "fold", "aria-expanded": String(open), "aria-label": `Groups in ${visible(group.name)}`, "data-focus": `fold ${group.name}`,
      onclick: () => {
        if (!this.#closed.delete(group.name)) this.#closed.add(group.name);
        this.#show();
      },
    }, open ? "▾" : "▸");
    const members = group.query ? `all with ${visible(group.query)}` : `${whole(group.members)} device${group.members === 1 ? "" : "s"}`;
    const name = [fold || h("span", { class: "fold" }), h("a", { href: `/?group=${encodeURIComponent(group.name)}` }, visible(group.name))];
    return this.#row({ target: { kind: "group", name: group.name }, name, about: members, set: group, override: group.override, force: inForce(group.name, this.fleet, Date.now()), own: group.name, depth, problem: group.problem });
  }

  #row({ target, name, about, set, override, force, own, depth, problem }) {
    const then = fallback(target.kind === "default" ? null : target.name, this.fleet, force);
    const from = ({ from: place, off }) => (off ? "all logs are off" : place === "" ? "nothing is set" : place === own ? null : `from ${place === "default" ? "the default" : visible(place)}`);
    const cell = h("th", { scope: "row" }, h("div", { class: "node" }, name, h("span", { class: "dim" }, about), problem && h("span", { class: "problem" }, visible(problem))));
    cell.firstChild.style.paddingLeft = `${depth * 22}px`;
    return h("tr", null, cell,
      h("td", { "data-label": "In force" }, h("div", { class: "force" }, levelText(force.level), force.until ? [h("span", { class: "chip" }, ending(force.until)), h("span", { class: "dim" }, from(force), from(force) && ", ", "then ", then.level, from(then) && ` (${from(then)})`)] : h("span", { class: "dim" }, from(force)))),
      h("td", { "data-label": set?.level || set?.sources ? "Set here" : null }, this.#set(set)),
      h("td", { class: "actions-cell" }, this.#actions(target, set, override)));
  }

  #set(set) {
    const sources = sourcesText(set?.sources);
    if (!set?.level && !sources) return h("span", { class: "dim" }, "–");
    return [set.level && levelText(set.level), sources && h("span", { class: "dim" }, ` ${visible(sources)}`)];
  }

  #actions(target, set, override) {
    if (!this.app.mayChange() || (!this.app.mayChangeFleet() && !["group", "device"].includes(target.kind))) return null;
    const key = `${target.kind} ${target.name ?? ""}`;
    const text = targetText(target);
    const has = Boolean(set?.level || Object.keys(set?.sources ?? {}).length > 0);
    return h("div", { class: "row-actions" },
      override && button("End now", { "aria-label": `End now: the temporary level of ${text}`, "data-focus": `end ${key}`, onclick: () => this.#do(() => endOverride(target), `The temporary level of ${text} has ended.`) }),
      has && button("Remove", { class: "plain", "aria-label": `Remove the level of ${text}`, "data-focus": `remove ${key}`, onclick: () => this.#remove(target) }),
      button("Set", { "aria-label": `Set the level of ${text}`, "data-test": "level-set", "data-focus": `set ${key}`, onclick: async () => (await setLevel(target, set ?? {})) && this.#load() }));
  }

  async #remove(target) {
    const text = targetText(target);
    if (await confirm(`Remove the level of ${text}?`, "What is set elsewhere decides then. A temporary level goes on until it ends.", "Remove level", () => removeLevel(target))) {
      note(`The level of ${text} is removed.`);
      await this.#load();
    }
  }

  async #do(work, done) {
    try {
      await work();
      note(done);
      await this.#load();
    } catch (error) {
      note(error.message, true);
    }
  }

  #showOthers() {
    const { levels, overrides, moreOthers } = this.told;
    const all_ = new Map();
    for (const item of levels) all_.set(`${item.type} ${item.name}`, { target: { kind: item.type, name: item.name }, set: item });
    for (const item of overrides) {
      const key = `${item.type} ${item.name}`;
      all_.set(key, { target: { kind: item.type, name: item.name }, ...all_.get(key), override: item });
    }
    this.others.hidden = all_.size === 0;
    fill(this.others, h("h2", null, "Levels of single devices and others"),
      h("ul", { class: "others" }, [...all_.values()].map(({ target, set, override }) => h("li", null,
        h("span", { class: "other-name" }, h("span", { class: "dim" }, `${target.kind} `), target.kind === "device" ? h("a", { href: `/devices/${encodeURIComponent(target.name)}` }, visible(target.name)) : visible(target.name)),
        h("span", null, this.#set(set), override && [" ", levelText(override.level), " ", h("span", { class: "chip" }, ending(override.until))]),
        this.#actions(target, set, override)))),
      moreOthers && h("p", { class: "dim" }, `Only the first ${MOST_OTHERS} are shown; a device’s page has its own.`));
  }

  async #explain(event) {
    event.preventDefault();
    fill(this.why, h("p", { class: "dim" }, "Looking …"));
    try {
      await explain(this.why, this.device.value.trim(), this.source.value.trim(), this.#stop.signal);
    } catch (error) {
      const problem = problemBox();
      fill(this.why, problem);
      problem.show(error);
    }
  }
}
