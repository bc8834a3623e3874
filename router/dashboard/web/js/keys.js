// Single keys: which there are, and the dialog that tells. They can be switched off (WCAG 2.1.4), and never act
// where somebody writes.

import { h } from "./dom.js";
import { set, settings } from "./settings.js";
import { dialog } from "./tell.js";

const TOLD = [
  ["Everywhere", [["?", "This help"], ["g f", "Fleet"], ["g l", "Logs"], ["g v", "Levels"], ["g d", "Destinations"], ["u", "Local time or UTC"], ["t", "Colours: dark, light, as the system"]]],
  ["Fleet", [["/", "Search for devices"], ["n", "Next page"], ["b", "Page before"]]],
  ["Logs", [["/", "Search"], ["p", "Pause, go on"], ["j k", "Next event, event before"], ["Enter", "Open the event"], ["Escape", "Close it"], ["G", "To the end, and follow"], ["y", "Copy a link to these lines"], ["d", "Download"], ["h", "To the histogram"], ["-", "Zoom out"]]],
  ["In the list of events", [["↑ ↓", "Event before, next event"], ["Page ↑ ↓", "By pages"], ["Home End", "First that is loaded, end"]]],
  ["In the histogram", [["← →", "From bar to bar"], ["Shift ← →", "Mark a time"], ["Enter", "Zoom into what is marked, or go to the bar"], ["+ −", "Zoom in and out"]]],
];
/** After `g` another key within this time, ms. */
const SECOND_KEY = 1200;

/** @param {object} app see main.js */
export function listen(app) {
  let first = 0;
  document.addEventListener("keydown", (event) => {
    if (!settings.keys || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]") || isWriting(event.target)) return;
    const second = event.timeStamp - first < SECOND_KEY;
    first = 0;
    if (second) {
      const path = { f: "/", l: "/logs", v: "/levels", d: "/destinations" }[event.key];
      if (path) return act(event, () => app.go(path));
    }
    if (event.key === "g") {
      first = event.timeStamp;
      return;
    }
    const actions = { "?": help, u: () => set({ utc: !settings.utc }), t: nextTheme, ...app.page?.keys };
    if (Object.hasOwn(actions, event.key)) act(event, actions[event.key]);
  });
}

function act(event, action) {
  event.preventDefault();
  action();
}

function isWriting(element) {
  const types = ["checkbox", "radio", "button"];
  return element.isContentEditable || element.matches("textarea, select") || (element.matches("input") && !types.includes(element.type));
}

export function nextTheme() {
  const order = ["auto", "dark", "light"];
  set({ theme: order[(order.indexOf(settings.theme) + 1) % order.length] });
}

export function help() {
  return dialog("Keys", () => {
    const on = h("input", { type: "checkbox", checked: settings.keys, onchange: (event) => set({ keys: event.target.checked }) });
    const keys = (text) => text.split(" ").flatMap((key, index) => [index > 0 && " ", h("kbd", null, key)]);
    return [
      h("div", { class: "keys" }, TOLD.map(([where, list]) => h("section", null, h("h3", null, where),
        h("dl", null, list.map(([key, what]) => h("div", null, h("dt", null, keys(key)), h("dd", null, what))))))),
      h("label", { class: "check" }, on, " Single keys act"),
    ];
  }, true);
}
