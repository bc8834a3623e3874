// The frame around all pages: which page an address is, the header, who is signed in, and what to say when the
// router is away.

import * as api from "./api.js";
import { button, fill, h, icon } from "./dom.js";
import { help, listen, nextTheme } from "./keys.js";
import { pageOf } from "./route.js";
import * as who from "./session.js";
import { changes, set, settings } from "./settings.js";
import { delayText, failure } from "./tell.js";
import { visible } from "./text.js";

const LINKS = [["/", "Fleet", "fleet"], ["/logs", "Logs", "logs"], ["/levels", "Levels", "levels"], ["/destinations", "Destinations", "destinations"]];

/** What pages have of the frame. */
const app = {
  /** @type {who.Session | null} */
  session: null,
  page: null,
  /** Goes to an address of ours. */
  go(address, { replace = false, state = null } = {}) {
    history[replace ? "replaceState" : "pushState"](state, "", address);
    return show();
  },
  setTitle(text) {
    document.title = `${visible(text)} · thinglog`;
  },
  signedIn(session) {
    app.session = session;
    header();
    const to = new URLSearchParams(location.search).get("to");
    return app.go(to?.startsWith("/") && !to.startsWith("//") ? to : "/", { replace: true });
  },
  mayChange: () => who.isOperator(app.session),
  mayChangeFleet: () => who.isUnlimited(app.session),
  mayClear: () => who.isOperator(app.session),
};

const main = document.getElementById("main");
let shown = null;
let turn = 0;

/** Shows the page of the address, or tells the one that is there. */
async function show(event) {
  const name = pageOf(location.pathname);
  mark(name);
  if (shown === name && app.page && name !== "device") return app.page.update(event?.type === "popstate");
  const mine = (turn += 1);
  app.page?.close();
  app.page = null;
  shown = name;
  document.body.dataset.page = name;
  try {
    const module = await import(`./pages/${name}.js`);
    if (mine !== turn) return;
    app.setTitle(module.title);
    window.scrollTo(0, 0);
    app.page = module.mount(main, app);
    // Whoever goes to another page by keyboard goes on there.
    if (mine > 1 && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
  } catch (error) {
    if (mine !== turn) return;
    shown = null;
    fill(main, failure(new Error(`This page could not be loaded (${error.message}). Load it again.`), button("Load again", { onclick: () => location.reload() })));
  }
}

function mark(name) {
  for (const link of document.querySelectorAll("nav.pages a")) {
    const [path] = LINKS.find(([, , page]) => page === (name === "device" ? "fleet" : name)) ?? [];
    if (link.getAttribute("href") === path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function header() {
  const session = app.session;
  fill(document.getElementById("pages"), session && LINKS.map(([path, name, picture]) => h("a", { href: path }, icon(picture), h("span", null, name))));
  const zone = button("", { class: "plain zone", onclick: () => set({ utc: !settings.utc }) });
  const theme = button("", { class: "plain", onclick: nextTheme });
  const show_ = () => {
    fill(zone, settings.utc ? "UTC" : "Local");
    zone.setAttribute("aria-label", `Times are ${settings.utc ? "UTC" : "local"}; switch`);
    zone.title = zone.getAttribute("aria-label");
    fill(theme, icon(settings.theme === "light" ? "sun" : "moon"), settings.theme === "auto" && h("span", { class: "auto" }, "A"));
    theme.setAttribute("aria-label", `Colours: ${settings.theme === "auto" ? "as the system" : settings.theme}; switch`);
    theme.title = theme.getAttribute("aria-label");
  };
  app.tools = show_;
  show_();
  fill(document.getElementById("tools"), zone, theme, button("Keys", { class: "plain", title: "Keys (?)", "aria-label": "Keys", onclick: help }, "?"), session && user(session));
  mark(pageOf(location.pathname));
}

function user(session) {
  const name = session.sign_in ? visible(session.name ?? "nobody") : "no sign-in";
  const menu = h("div", { class: "menu", popover: "auto", id: "user-menu" },
    h("p", null, h("strong", null, name), h("br"), h("span", { class: "dim" }, session.sign_in ? `${session.role}, ${who.scope(session)}` : "Only this machine is served, and whoever is here may do everything.")),
    session.sign_in && button("Sign out", { icon: "out", "data-test": "sign-out", onclick: leave }));
  const open = h("button", { type: "button", class: "user", popovertarget: menu.id, title: "Who is signed in" },
    h("span", { class: "user-name" }, name), h("span", { class: "user-role dim" }, session.sign_in ? [session.role, session.groups?.length && ` · ${visible(session.groups.join(", "))}`] : "this machine"));
  menu.addEventListener("beforetoggle", () => {
    menu.style.top = `${open.getBoundingClientRect().bottom + 4}px`;
    menu.style.right = "8px";
  });
  return [open, menu];
}

async function leave() {
  await who.signOut().catch(() => {});
  app.session = null;
  app.go("/sign-in");
  header();
}

/** A session has ended or was never there. */
function signInFirst() {
  if (pageOf(location.pathname) === "sign-in") return;
  app.session = null;
  header();
  app.go(`/sign-in?to=${encodeURIComponent(location.pathname + location.search)}`, { replace: true });
}

/** Says that the router is away, or cannot answer yet and why, until it is back. */
function watchRouter() {
  const banner = document.getElementById("away");
  const text = h("span");
  const again = button("Try now", { onclick: () => api.events.dispatchEvent(new Event("try-now")) });
  fill(banner, text, again);
  let since = 0;
  api.events.addEventListener("away", ({ detail }) => {
    const told = visible(`${delayText(detail.error)} What is shown may be old.`);
    // What is written again is read out again.
    if (text.textContent !== told) text.textContent = told;
    since ||= setTimeout(() => (banner.hidden = false), 1200);
  });
  api.events.addEventListener("back", () => {
    clearTimeout(since);
    since = 0;
    banner.hidden = true;
  });
}

/** Links of ours change the page instead of loading it. */
function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.defaultPrevented) return;
    const url = new URL(link.href);
    if (url.origin !== location.origin || link.target || link.hasAttribute("download") || !pageOf(url.pathname) || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    app.go(url.pathname + url.search);
  });
  window.addEventListener("popstate", show);
}

async function start() {
  document.documentElement.dataset.theme = settings.theme;
  changes.addEventListener("changed", () => app.tools?.());
  watchRouter();
  followLinks();
  listen(app);
  header();
  try {
    app.session = await api.insist(who.current);
  } catch (error) {
    if (error.status !== 401) return fill(main, failure(error));
    api.events.addEventListener("sign-in", signInFirst);
    if (pageOf(location.pathname) === "sign-in") return show();
    return signInFirst();
  }
  api.events.addEventListener("sign-in", signInFirst);
  header();
  await show();
}

start();
