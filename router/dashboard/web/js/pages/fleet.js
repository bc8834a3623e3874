// The fleet: devices a page at a time, how they are, at which level and why, and how much they log.

import { call, part, poll } from "../api.js";
import { button, fill, h, icon, id } from "../dom.js";
import { short } from "../number.js";
import { spark } from "../spark.js";
import { announce, blank, failure } from "../tell.js";
import { visible } from "../text.js";
import { relative } from "../time.js";

const PAGE = 50;
const HOUR = 3_600_000;
const STEP = 120_000;
const EVERY = 15_000;
const TYPING = 300;

export const title = "Fleet";

export function mount(root, app) {
  return new FleetPage(root, app);
}

/** A search for devices: part of a name, or a query in the language of dynamic groups. */
export function queryOf(text) {
  if (text === "") return "";
  return /^[\w.:*?-]+$/.test(text) ? `name ~ "*${text.replace(/^\*|\*$/g, "")}*"` : text;
}

/** A count as it is shown, `undefined` when it is not known; of what was counted in part, the least that it is. */
export function counted(count, partial) {
  if (count === undefined || (partial && count === 0)) return "–";
  return partial ? `≥ ${short(count)}` : short(count);
}

class FleetPage {
  #stop = null;
  #timer = 0;

  constructor(root, app) {
    this.app = app;
    const groups = h("datalist", { id: id("groups") });
    this.search = h("input", { type: "search", placeholder: "Name, or a query like model = x1", "aria-label": "Search devices", "data-test": "search", autocomplete: "off", spellcheck: "false", oninput: () => this.#later() });
    this.group = h("input", { type: "text", placeholder: "any group", "aria-label": "Group", list: groups.id, autocomplete: "off", oninput: () => this.#later() });
    this.online = h("select", { "aria-label": "Connection", onchange: () => this.#ask() }, [["", "Online or not"], ["true", "Online"], ["false", "Offline"]].map(([value, text]) => h("option", { value }, text)));
    call("groups", { limit: 500 }).then(({ items }) => fill(groups, items.map((item) => h("option", { value: item.name }))), () => {});
    this.rows = h("tbody");
    this.table = h("table", { class: "fleet" }, h("caption", { class: "unseen" }, "Devices"),
      h("thead", null, h("tr", null, ["Device", "Level", "Last hour", "Errors", "Last seen"].map((name, index) => h("th", { scope: "col", class: index === 3 ? "number" : null }, name)))), this.rows);
    this.state = h("div", { class: "state-box" });
    this.before = button("Page before", { icon: "left", onclick: () => this.#turn(-1) });
    this.next = button("Next page", { icon: "right", onclick: () => this.#turn(1) });
    this.said = h("p", { class: "dim", role: "status" });
    fill(root, h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", null, "Fleet"),
        h("form", { class: "bar", role: "search", "aria-label": "Devices", onsubmit: (event) => (event.preventDefault(), this.#ask()) },
          h("div", { class: "search-box" }, icon("search"), this.search), this.group, groups, this.online)),
      this.state, this.table,
      h("nav", { class: "pager", "aria-label": "Pages of devices" }, this.said, this.before, this.next)));
    this.update();
  }

  get keys() {
    return { "/": () => this.search.focus(), n: () => this.next.disabled || this.#turn(1), b: () => this.before.disabled || this.#turn(-1) };
  }

  update() {
    const params = new URLSearchParams(location.search);
    const text = (name) => params.get(name) ?? "";
    for (const [input, name] of [[this.search, "q"], [this.group, "group"], [this.online, "online"]]) {
      if (document.activeElement !== input) input.value = text(name);
    }
    this.asked = { query: queryOf(text("q").trim()), group: text("group").trim(), online: text("online"), cursor: text("after") };
    this.#stop?.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    this.table.setAttribute("aria-busy", "true");
    poll(() => this.#load(signal), EVERY, signal, (error) => this.#failed(error));
  }

  close() {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  async #load(signal) {
    const page = await call("devices", { ...this.asked, limit: PAGE }, { signal });
    this.#show(page);
    if (page.items.length > 0) await this.#counts(page.items, signal);
  }

  #show({ items, next }) {
    this.nextCursor = next;
    this.table.removeAttribute("aria-busy");
    const filtered = this.asked.query || this.asked.group || this.asked.online;
    this.table.hidden = items.length === 0;
    fill(this.state, items.length > 0 ? null : filtered || this.asked.cursor
      ? blank("No device fits", next ? "Not all were looked at yet: the next page goes on." : "Try a part of the name, or another group.", button("Show all devices", { onclick: () => this.app.go("/") }))
      : blank("No device is known yet", "A device is known as soon as it connects or logs.", h("pre", { class: "hint" }, "mosquitto_pub -t thinglog/logs/lamp-7/app -q 1 -m 'hello'")));
    const known = new Map([...this.rows.children].map((row) => [row.dataset.device, row]));
    const rows = items.map((item) => this.#row(item, known.get(item.device)));
    this.rows.replaceChildren(...rows);
    const trail = history.state?.trail ?? [];
    this.before.disabled = trail.length === 0 && !this.asked.cursor;
    this.next.disabled = !next;
    const said = items.length === 0 ? "" : `${visible(items[0].device)} to ${visible(items.at(-1).device)}, ${items.length} devices${next || this.asked.cursor ? `, page ${trail.length + 1}` : ""}`;
    if (this.said.textContent !== said) this.said.textContent = said;
  }

  #row(item, before) {
    const name = item.device;
    const row = before ?? h("tr", { "data-device": name, "data-test": "fleet-row" });
    const state = item.online === true ? "online" : item.online === false ? "offline" : "unknown";
    const now = Date.now();
    const seen = item.online ? "now" : item.last_contact ? relative(Date.parse(item.last_contact), now) : "never";
    const logs = `/logs?device=${part(name)}`;
    const spot = before?.spot ?? h("a", { class: "sparkbox", href: logs, "data-moves": true }, h("span", { class: "unseen" }, "Events in the last hour"));
    const errors = before?.errors ?? h("td", { class: "number", "data-moves": true, "data-label": "Errors" }, "–");
    Object.assign(row, { spot, errors });
    const override = item.override && h("span", { class: "chip", title: `Until ${item.override.until}` }, "temporary");
    fill(row,
      h("th", { scope: "row" }, h("div", { class: "who" },
        h("span", { class: `dot is-${state}`, title: state, role: "img", "aria-label": state }),
        h("span", { class: "name" }, h("a", { href: `/devices/${part(name)}` }, visible(name)),
          h("span", { class: "groups" }, (item.groups ?? []).slice(0, 3).map((group) => h("a", { class: "group", href: `/?group=${part(group)}` }, visible(group))))),
        h("a", { class: "to-logs", href: logs }, icon("logs"), h("span", null, "Logs")))),
      h("td", { "data-label": "Level" }, h("div", { class: "why-cell" }, h("span", null, h("span", { class: `level is-${item.level.toLowerCase()}` }, item.level), override),
        h("span", { class: "why dim", title: visible(item.why) }, visible(brief(item.why))))),
      h("td", { "data-label": "Last hour" }, spot), errors,
      h("td", { class: "dim seen", "data-moves": true, "data-label": "Last seen", title: item.last_contact ?? null }, seen));
    return row;
  }

  async #counts(items, signal) {
    const now = Math.ceil(Date.now() / STEP) * STEP;
    const range = { from: now - HOUR, until: now, step: STEP };
    const params = { by: "device", device: items.map((item) => item.device).join(","), since: "1h", step: "2m" };
    let counts;
    try {
      counts = await call("logs/counts", params, { signal });
    } catch (error) {
      if (signal.aborted || error.isAway) throw error;
      // Without a store nothing is counted; all else of the page stands.
      counts = { devices: {}, partial: false };
    }
    const { devices, partial } = counts;
    let wrong = 0;
    for (const row of this.rows.children) wrong += this.#counted(row, devices[row.dataset.device], range, partial) > 0 ? 1 : 0;
    if (wrong !== this.wrong && this.wrong !== undefined) announce(`${partial ? "At least " : ""}${wrong} devices with errors in the last hour`);
    this.wrong = wrong;
  }

  /** Shows how much a device logged; returns how many of it are errors. */
  #counted(row, steps, range, partial) {
    const errors = steps?.reduce((sum, step) => sum + step.error, 0);
    const total = steps?.reduce((sum, step) => sum + step.debug + step.info + step.warn + step.error, 0);
    fill(row.spot, steps && spark(steps, range), h("span", { class: "dim" }, counted(total, partial), h("span", { class: "unseen" }, " events in the last hour")));
    row.spot.title = partial ? "Not all could be counted in time" : "";
    row.errors.classList.toggle("has-errors", errors > 0);
    const shown = counted(errors, partial);
    fill(row.errors, errors > 0 ? h("a", { href: `/logs?level=error&since=1h&device=${part(row.dataset.device)}` }, shown, h("span", { class: "unseen" }, " errors")) : shown);
    return errors;
  }

  #failed(error) {
    this.table.hidden = true;
    fill(this.state, failure(error, button("Show all devices", { onclick: () => this.app.go("/") })));
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), TYPING);
  }

  #ask() {
    clearTimeout(this.#timer);
    const params = new URLSearchParams();
    for (const [name, input] of [["q", this.search], ["group", this.group], ["online", this.online]]) if (input.value.trim()) params.set(name, input.value.trim());
    this.app.go(`/${params.size ? `?${params}` : ""}`, { replace: true });
  }

  /** Pages ahead are named by where they begin; the way back is remembered with the page. */
  #turn(by) {
    const trail = history.state?.trail ?? [];
    const params = new URLSearchParams(location.search);
    const to = by > 0 ? this.nextCursor : trail.at(-1) ?? "";
    if (to) params.set("after", to);
    else params.delete("after");
    this.app.go(`/${params.size ? `?${params}` : ""}`, { state: { trail: by > 0 ? [...trail, this.asked.cursor] : trail.slice(0, -1) } });
    window.scrollTo(0, 0);
  }
}

/** Which document decides, out of the sentence that says so. */
function brief(why) {
  const topic = /config\/(override\/)?([\w-]+)(?:\/(\S+))?/.exec(why);
  if (!topic) return "nothing is set";
  return `${topic[1] ? "temporary, " : ""}${topic[2]}${topic[3] ? ` ${topic[3]}` : ""}`;
}
