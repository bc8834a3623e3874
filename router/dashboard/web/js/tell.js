// What is told to the user beside the page's content: to screen readers, in short notes, in dialogs.

import { button, h, id } from "./dom.js";

/** Between two sentences that are read out, ms: a busy log must not flood who listens. */
const PACE = 4000;
let next = 0;
let pending = 0;

/** Has a sentence read out, the latest of many. */
export function announce(text) {
  clearTimeout(pending);
  const now = performance.now();
  pending = setTimeout(() => {
    next = performance.now() + PACE;
    document.getElementById("announcer").textContent = text;
  }, Math.max(100, next - now));
}

/** Shows a note for a moment. */
export function note(text, isProblem = false) {
  const shown = h("div", { class: isProblem ? "note is-problem" : "note", "data-test": isProblem ? "problem" : null }, text);
  document.getElementById("notes").append(shown);
  setTimeout(() => shown.remove(), isProblem ? 10_000 : 4000);
}

/**
 * Shows a dialog until it is closed.
 * @param {string} title
 * @param {(close: (result?: unknown) => void) => unknown[]} make  What is in it.
 * @returns {Promise<unknown>} what it was closed with
 */
export function dialog(title, make, wide = false) {
  return new Promise((resolve) => {
    const heading = id("dialog");
    let result;
    const close = (value) => {
      result = value;
      element.close();
    };
    const element = h("dialog", { "aria-labelledby": heading, class: wide ? "wide" : null });
    element.append(
      h("header", null, h("h2", { id: heading }, title), button("Close", { icon: "close", quiet: true, class: "plain", onclick: () => close() })),
      ...make(close).filter(Boolean),
    );
    element.addEventListener("click", (event) => event.target === element && close());
    element.addEventListener("close", () => {
      element.remove();
      resolve(result);
    });
    document.body.append(element);
    element.showModal();
  });
}

/**
 * Asks before something is done that cannot be taken back, does it, and says what went wrong.
 * @param {() => Promise<unknown>} act
 * @returns {Promise<boolean>} whether it was done
 */
export async function confirm(title, text, yes, act) {
  const done = await dialog(title, (close) => {
    const problem = problemBox();
    const act_ = button(yes, {
      class: "danger",
      onclick: async () => {
        act_.disabled = true;
        try {
          await act();
          close(true);
        } catch (error) {
          problem.show(error);
          act_.disabled = false;
        }
      },
    });
    return [h("p", null, text), problem, h("footer", null, button("Cancel", { autofocus: true, onclick: () => close(false) }), act_)];
  });
  return done === true;
}

/** A place for what went wrong; empty until `show`. */
export function problemBox() {
  const element = h("p", { class: "problem", role: "alert", "data-test": "problem", hidden: true });
  element.show = (error) => {
    element.textContent = error ? advice(error) : "";
    element.hidden = !error;
  };
  return element;
}

/** What went wrong, as a sentence. */
function sentenceOf(error) {
  const message = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  return /[.!?]$/.test(message) ? message : `${message}.`;
}

/** Why something waits that is tried again: the router's own words, if it has answered. */
export function delayText(error) {
  const isTold = error.isLater && error.code !== String(error.status);
  return `${isTold ? sentenceOf(error) : "The router does not answer."} It is tried again by itself.`;
}

/** What went wrong, and what to do. */
export function advice(error) {
  const sentence = sentenceOf(error);
  if (error.status === 0) return `${sentence} It is tried again by itself; check that thinglog runs and the network stands.`;
  if (error.status === 401) return `${sentence} Sign in to go on.`;
  if (error.status === 403) return `${sentence} Ask an administrator for the right, or sign in as somebody else.`;
  if (error.status === 503 || error.status === 429) return `${sentence} Try again in a moment.`;
  return sentence;
}

/** A page's or part's state instead of its content: nothing there, or what went wrong. */
export function blank(title, text, ...more) {
  return h("div", { class: "blank" }, h("p", { class: "blank-title" }, title), text && h("p", null, text), ...more);
}

/** The same for an error. */
export function failure(error, ...more) {
  const title = error.status === 403 ? "Not yours to see" : "That did not work";
  return h("div", { class: "blank", role: "alert", "data-test": "problem" }, h("p", { class: "blank-title" }, title), h("p", null, advice(error)), ...more);
}
