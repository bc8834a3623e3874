// Destinations: how each does, by the second, its dead letters; and the alerts that are open.

import { call, part, poll } from "../api.js";
import { button, fill, h, shown } from "../dom.js";
import { Rates, bytes, lag, short, whole } from "../number.js";
import { settings } from "../settings.js";
import { advice, announce, blank, confirm, dialog, failure, note } from "../tell.js";
import { cut, pieces, visible } from "../text.js";
import { moment, relative } from "../time.js";

const EVERY = 2000;
const ALERTS_EVERY = 5000;
const LETTERS = 50;
const MOST_ALERTS = 200;

export const title = "Destinations";

export function mount(root, app) {
  return new DestinationsPage(root, app);
}

class DestinationsPage {
  #stop = new AbortController();
  #rates = new Rates();
  #rows = new Map();
  #bad = null;

  constructor(root, app) {
    this.app = app;
    this.body = h("tbody");
    this.state = h("div", null, blank("Looking …"));
    const columns = [["Destination", ""], ["Events/s", "number"], ["Lag", "number"], ["In hand", "number"], ["Retries", "number"], ["Dead letters", "number"], ["Delivered", "number"]];
    this.table = h("table", { class: "destinations", hidden: true }, h("caption", { class: "unseen" }, "Destinations"),
      h("thead", null, h("tr", null, columns.map(([name, kind]) => h("th", { scope: "col", class: kind || null }, name)))), this.body);
    this.alerts = h("div", null, blank("Looking …"));
    fill(root, h("div", { class: "page" }, h("header", { class: "page-head" }, h("h1", null, "Destinations")), this.state, this.table,
      h("section", { class: "alerts", "aria-labelledby": "alerts-head" }, h("h2", { id: "alerts-head" }, "Alerts"), this.alerts)));
    const { signal } = this.#stop;
    poll(() => this.#load(signal), EVERY, signal, (error) => this.#failed(error));
    poll(() => this.#loadAlerts(signal), ALERTS_EVERY, signal, (error) => fill(this.alerts, failure(error)));
  }

  update() {}

  close() {
    this.#stop.abort();
  }

  async #load(signal) {
    const { items } = await call("destinations", {}, { signal });
    fill(this.state, items.length === 0 ? blank("There are no destinations", "They stand in thinglog.toml:", h("pre", { class: "hint" }, "[router.destinations.search]\ntype = \"store\"")) : null);
    this.table.hidden = items.length === 0;
    const now = performance.now();
    for (const name of this.#rows.keys()) if (!items.some((item) => item.name === name)) this.#drop(name);
    for (const item of items) this.#show(item, now);
    const bad = items.filter((item) => !item.ready).map((item) => item.name).join(", ");
    if (this.#bad !== null && bad !== this.#bad) announce(bad ? `Not ready: ${bad}` : "All destinations are ready");
    this.#bad = bad;
  }

  #drop(name) {
    this.#rows.get(name).row.remove();
    this.#rows.delete(name);
  }

  #failed(error) {
    this.table.hidden = true;
    const limited = error.status === 403;
    fill(this.state, limited ? blank("Destinations concern the whole fleet", "You are limited to groups, so they are not shown. Alerts of your devices and groups are below.") : failure(error));
  }

  #show(item, now) {
    const known = this.#rows.get(item.name) ?? this.#row(item);
    const { cells } = known;
    const rate = this.#rates.rate(item.name, item.events.delivered ?? 0, now);
    put(cells.rate, rate === null ? "–" : short(rate));
    put(cells.lag, lag(item.lag_ms));
    cells.lag.classList.toggle("is-late", item.lag_ms > 60_000);
    const flight = item.events.in_flight ?? 0;
    put(cells.hand, flight === 0 ? "0" : `${short(flight)}${item.in_hand_bytes ? ` (${bytes(item.in_hand_bytes)})` : ""}`);
    put(cells.retries, short(item.retries));
    put(cells.delivered, short(item.events.delivered ?? 0));
    cells.delivered.title = Object.entries(item.events).map(([name, count]) => `${name} ${whole(count)}`).join(", ");
    cells.dot.className = `dot is-${item.ready ? "online" : "problem"}`;
    cells.dot.setAttribute("aria-label", item.ready ? "ready" : "not ready");
    put(cells.reason, item.ready ? "" : visible(item.reason));
    cells.reason.hidden = item.ready;
    const letters = item.dead_letters;
    if (known.letters !== letters) {
      known.letters = letters;
      fill(cells.letters, letters === undefined ? h("span", { class: "dim" }, "–") : letters === 0 ? "0"
        : button(short(letters), { "aria-label": `${short(letters)} dead letters of ${item.name}`, class: "danger small", onclick: () => this.#letters(item.name) }));
    }
    put(cells.lost, item.dead_letters_lost > 0 ? `${short(item.dead_letters_lost)} lost` : "");
  }

  #row(item) {
    const number = (label) => h("td", { class: "number", "data-moves": true, "data-label": label });
    const cells = {
      dot: h("span", { role: "img" }), reason: h("p", { class: "reason" }), rate: number("Events/s"), lag: number("Lag"), hand: number("In hand"),
      retries: number("Retries"), letters: h("span"), lost: h("span", { class: "is-late" }), delivered: number("Delivered"),
    };
    const routes = item.routes.length > 0 ? `routes ${item.routes.join(", ")}` : "no routes";
    const row = h("tr", { "data-test": "destination-row" },
      h("th", { scope: "row" }, h("div", { class: "destination-name" }, cells.dot, h("strong", null, visible(item.name)), h("span", { class: "group" }, item.type), h("span", { class: "dim" }, visible(routes))), cells.reason),
      cells.rate, cells.lag, cells.hand, cells.retries, h("td", { class: "number", "data-label": "Dead letters" }, cells.letters, " ", cells.lost), cells.delivered);
    this.body.append(row);
    const known = { row, cells, letters: null };
    this.#rows.set(item.name, known);
    return known;
  }

  async #loadAlerts(signal) {
    const { items } = await call("alerts", {}, { signal });
    const text = JSON.stringify([items, settings.utc]);
    if (text === this.alertsTold) return;
    const open = items.reduce((sum, rule) => sum + rule.open, 0);
    if (this.open !== undefined && open > this.open) announce(`${open} alerts open`);
    this.open = open;
    this.alertsTold = text;
    fill(this.alerts, items.length === 0 ? blank("There are no alert rules", "A rule in thinglog.toml tells somebody of events, of too many of them, or of devices that fall silent.")
      : items.sort((a, b) => b.open - a.open).map((rule) => this.#rule(rule)));
  }

  #rule(rule) {
    const more = rule.open - Math.min(rule.alerts.length, MOST_ALERTS);
    return h("article", { class: rule.open > 0 ? "card rule is-open" : "card rule" },
      h("header", null, h("h3", null, visible(rule.rule)), rule.severity && h("span", { class: "group" }, visible(rule.severity)), h("span", { class: rule.open > 0 ? "is-late" : "dim" }, rule.open > 0 ? `${whole(rule.open)} open` : "quiet"),
        h("span", { class: "dim grow" }, visible([rule.when, rule.opens, `by ${rule.by}`, `to ${rule.to.join(", ")}`].filter(Boolean).join(" · ")))),
      rule.alerts.length > 0 && h("ul", { class: "open-alerts" }, rule.alerts.slice(0, MOST_ALERTS).map((alert) => this.#alert(alert))),
      more > 0 && h("p", { class: "dim" }, `and ${whole(more)} more: thinglog alert list`));
  }

  #alert(alert) {
    const now = Date.now();
    const who = alert.device ?? alert.group;
    const logs = alert.device ? `/logs?device=${part(alert.device)}` : alert.group ? `/logs?group=${part(alert.group)}` : "/logs";
    return h("li", { "data-test": "alert-row" }, h("a", { href: logs }, who ? visible(who) : "the fleet"),
      h("span", { class: "dim", "data-moves": true, title: alert.starts }, `since ${moment(Date.parse(alert.starts), settings.utc, now)} (${relative(Date.parse(alert.starts), now)})`),
      h("span", { "data-moves": true }, `${whole(alert.count)} event${alert.count === 1 ? "" : "s"}`),
      h("span", { class: "grow text" }, Object.values(alert.annotations).map((text) => visible(cut(text, 200))).join(" · ")));
  }

  /** The dead letters of a destination. */
  #letters(name) {
    const list = h("div", null, blank("Looking …"));
    const load = async () => {
      try {
        const page = await call(`destinations/${part(name)}/dead-letters`, { limit: LETTERS });
        fill(list, page.items.length === 0 ? blank("There are none any more") : page.items.map((letter) => this.#letter(name, letter, load)), page.next && h("p", { class: "dim" }, `Only the first ${LETTERS} are shown.`));
      } catch (error) {
        fill(list, failure(error));
      }
    };
    load();
    return dialog(`Dead letters of ${visible(name)}`, () => [
      h("p", { class: "dim" }, "Events that it refused for good. Send them again once the reason is gone."), list,
      h("footer", null, button("Delete all", { class: "danger", onclick: async () => (await confirm("Delete all dead letters?", `The events stay in other destinations, but ${visible(name)} will not get them.`, "Delete all", () => this.#order(name, "drop", { all: true }))) && load() }),
        button("Send all again", { class: "primary", onclick: () => this.#order(name, "replay", { all: true }).then(load, (error) => note(advice(error), true)) })),
    ], true);
  }

  #letter(name, { n, refused, reason, event }, load) {
    const act = (what) => () => this.#order(name, what, { letters: [n] }).then(load, (error) => note(advice(error), true));
    return h("article", { class: "letter" }, h("p", null, h("strong", null, visible(reason)), h("span", { class: "dim", "data-moves": true }, ` ${moment(Date.parse(refused), settings.utc, Date.now())}`)),
      h("pre", null, shown(pieces(cut(JSON.stringify(event), 600), null))), h("p", { class: "actions" }, button("Send again", { onclick: act("replay") }), button("Delete", { onclick: act("drop") })));
  }

  async #order(name, what, body) {
    const done = await call(`destinations/${part(name)}/dead-letters/${what}`, {}, { method: "POST", body });
    if (done.error) throw new Error(done.error);
    note(!done.done ? "It goes on; look again in a moment." : what === "drop" ? `${done.dropped} deleted.` : `${done.accepted} taken, ${done.refused} refused again.`);
  }
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
