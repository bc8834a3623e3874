// One device: how it is, why it has its level, what was changed of it.

import { call, part, poll } from "../api.js";
import { button, fill, h, icon } from "../dom.js";
import { bytes, whole } from "../number.js";
import { deviceOf } from "../route.js";
import { endOverride, ending, explain, levelText, setLevel, tick } from "../set-level.js";
import { settings } from "../settings.js";
import { advice, blank, confirm, failure, note } from "../tell.js";
import { visible } from "../text.js";
import { moment, relative } from "../time.js";

const EVERY = 5000;
const CHANGES = 20;

export const title = "Device";

export function mount(root, app) {
  const name = deviceOf(location.pathname);
  const target = { kind: "device", name };
  const stop = new AbortController();
  const { signal } = stop;
  const shownName = visible(name);
  app.setTitle(shownName);
  const state = h("div", null, blank("Looking …"));
  const facts = h("dl", { class: "facts" });
  const actions = h("div", { class: "row-actions" });
  const head = h("div", { class: "destination-name" });
  const why = h("div", { class: "explained" });
  const changes = h("div");
  const content = h("div", { hidden: true },
    h("div", { class: "columns" },
      h("section", { class: "card" }, h("h2", null, "How it is"), facts),
      h("section", { class: "card" }, h("h2", null, "Its level, and why"), why)),
    h("section", { class: "card" }, h("h2", null, "What was changed"), changes));
  fill(root, h("div", { class: "page" }, h("p", null, h("a", { href: "/" }, "Fleet")),
    h("header", { class: "page-head" }, h("h1", null, shownName), head, h("span", { class: "grow" }), actions), state, content));

  let told = "";
  async function load(anew = false) {
    const device = await call(`devices/${part(name)}`, {}, { signal });
    const text = JSON.stringify([device, settings.utc], (key, value) => (key === "for_s" || key === "last_contact" ? undefined : value));
    fill(facts, factsOf(device));
    if (text === told && anew !== true) return;
    told = text;
    fill(state, null);
    content.hidden = false;
    const status = device.online === true ? "online" : device.online === false ? "offline" : "unknown";
    fill(head, h("span", { class: `dot is-${status}`, role: "img", "aria-label": status }), h("span", { class: "dim" }, status === "unknown" ? "logs without a connection of its own" : status), levelText(device.level),
      device.override && h("span", { class: "chip" }, ending(device.override.until)));
    fill(actions, actionsOf(device));
    await Promise.all([explain(why, name, "", signal), history_()]);
  }

  async function history_() {
    const { items } = await call("history", { subject: `device:${name}`, limit: CHANGES }, { signal });
    fill(changes, items.length === 0 ? h("p", { class: "dim" }, "Nothing yet.") : h("ul", { class: "changes" }, items.map((item) => h("li", null,
      h("span", { class: "dim", "data-moves": true }, moment(Date.parse(item.at), settings.utc, Date.now())), h("span", null, visible(item.change)), item.by && h("span", { class: "dim" }, `by ${visible(item.by)}`)))));
  }

  const act = async (work, done) => {
    try {
      await work();
      note(done);
      await load(true);
    } catch (error) {
      note(advice(error), true);
    }
  };

  function actionsOf(device) {
    return [
      h("a", { class: "button primary", href: `/logs?device=${part(name)}` }, icon("logs"), h("span", null, "Logs")),
      app.mayChange() && button("Set level", { "data-test": "level-set", onclick: async () => (await setLevel(target, { level: device.level })) && load(true) }),
      app.mayChange() && device.override && button("End temporary level", { onclick: () => act(() => endOverride(target), "The temporary level has ended.") }),
      app.mayClear() && button("Clear log", { icon: "trash", "data-test": "clear", onclick: clear }),
    ];
  }

  async function clear() {
    const text = "Everything that this device has logged so far is forgotten here, for everybody. Other destinations keep what they have. This cannot be undone.";
    if (await confirm(`Clear the log of ${shownName}?`, text, "Clear log", () => call(`devices/${part(name)}/logs`, {}, { method: "DELETE" }))) note(`The log of ${shownName} is cleared.`);
  }

  const ticking = setInterval(() => tick(root), 1000);
  poll(load, EVERY, signal, (error) => {
    content.hidden = true;
    fill(state, failure(error, h("a", { class: "button", href: "/" }, "To the fleet")));
  });
  return {
    update() {},
    close() {
      stop.abort();
      clearInterval(ticking);
    },
  };
}

function factsOf(device) {
  const now = Date.now();
  const time = (text) => text && h("span", { "data-moves": true }, `${moment(Date.parse(text), settings.utc, now)}, ${relative(Date.parse(text), now)}`);
  const attributes = { ...device.reported_attributes, ...device.attributes };
  const groups = device.groups ?? [];
  const facts = [
    ["Groups", groups.length > 0 && h("span", { class: "groups" }, groups.map((group) => h("a", { class: "group", href: `/?group=${part(group)}` }, visible(group))))],
    ["Type", device.type], ["Version", device.version],
    ["Last heard of", time(device.last_contact)], ["Connected", time(device.connected_since)], ["Signed in as", device.principal], ["Address", device.address],
    ["Upload", device.upload], ["Waiting on it", device.spool_events > 0 && `${whole(device.spool_events)} events, ${bytes(device.spool_bytes ?? 0)}`],
    ["Dropped by it", device.dropped > 0 && `${whole(device.dropped)} events`],
    ["Clock", device.clock_synced === false && "does not know the time"],
    ["Goes by its level", device.revision && (device.revision === device.desired_revision ? "yes" : "not yet: it has not reported the newest settings")],
    ...Object.entries(attributes).map(([name, value]) => [visible(name), value]),
  ];
  return facts.filter(([, value]) => value).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, typeof value === "string" ? visible(value) : value)));
}
