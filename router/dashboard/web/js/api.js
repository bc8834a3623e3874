// Requests to the router. What is refused is an `ApiError` that says why; a router that does not answer, or cannot
// yet, is told to whoever listens, and what waits for it is tried again.

import { delay } from "./backoff.js";

/** After so long without an answer a request has failed, ms: a search takes five seconds, its turn ten. */
const PATIENCE = 25_000;

export class ApiError extends Error {
  /** @param {number} status  0 when there was no answer. */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Nobody answered, or somebody in between. */
  get isSilent() {
    return this.status === 0 || this.status === 502 || this.status === 504;
  }

  /** The router cannot yet: something in it is not ready, or too much is asked at once. */
  get isLater() {
    return this.status === 503 || this.status === 429;
  }

  /** Worth trying again. */
  get isAway() {
    return this.isSilent || this.isLater;
  }
}

/** Tells `away` (with `detail.error`) and `back`, and `sign-in` when a request needs one. */
export const events = new EventTarget();
/** Who waits for the router, and why: for all of it, or for what cannot be answered yet. */
const waiting = new Map();
const ROUTER = "router";

/** Notes that somebody waits. Any answer shows that the router is there; what cannot be yet is each one's own. */
export function noteAway(error, who = ROUTER) {
  const key = error.isLater ? who : ROUTER;
  waiting.delete(key);
  waiting.set(key, error);
  tellAway(error);
}

export function noteBack(who = ROUTER) {
  if (!waiting.delete(who)) return;
  if (waiting.size > 0) tellAway([...waiting.values()].at(-1));
  else events.dispatchEvent(new Event("back"));
}

function tellAway(error) {
  events.dispatchEvent(new CustomEvent("away", { detail: { error } }));
}

/** An address of the API with parameters; empty ones are left out. */
export function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  }
  const text = query.toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

/** A part of a path that a name stands in. */
export const part = encodeURIComponent;

/**
 * Sends a request; the answer is open to be read.
 * @returns {Promise<Response>}
 */
export async function send(url, { method = "GET", body, headers = {}, signal, patience = PATIENCE } = {}) {
  const timeout = patience ? AbortSignal.timeout(patience) : null;
  const signals = [signal, timeout].filter(Boolean);
  let response;
  try {
    response = await fetch(url, {
      method,
      // Who asks so is not shown the browser's own window for a password.
      headers: { "x-requested-with": "fetch", ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signals.length > 1 ? AbortSignal.any(signals) : signals[0],
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const failure = new ApiError(0, "Away", "The router does not answer.");
    noteAway(failure);
    throw failure;
  }
  if (response.ok) {
    noteBack();
    return response;
  }
  const error = await refusal(response);
  if (error.isSilent) noteAway(error);
  else noteBack();
  throw error;
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const code = body?.error?.code ?? String(response.status);
  const message = body?.error?.message ?? `${response.status} ${response.statusText}`;
  const error = new ApiError(response.status, code, message);
  if (response.status === 401) events.dispatchEvent(new Event("sign-in"));
  return error;
}

/** What a path of the API answers, `null` where there is nothing. */
export async function call(path, params, options) {
  const response = await send(address(path, params), options);
  return response.status === 204 ? null : response.json();
}

/** All items of a list, page by page, up to a limit. */
export async function all(path, most, options) {
  const items = [];
  let cursor;
  do {
    const page = await call(path, { limit: Math.min(1000, most), cursor }, options);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return { items, more: Boolean(cursor) };
}

/** Waits; ends early, by an error, with the signal. */
export function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(done, ms);
    function done() {
      signal?.removeEventListener("abort", stop);
      events.removeEventListener("try-now", soon);
      resolve();
    }
    function soon() {
      clearTimeout(timer);
      done();
    }
    function stop() {
      clearTimeout(timer);
      events.removeEventListener("try-now", soon);
      reject(signal.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
    events.addEventListener("try-now", soon, { once: true });
  });
}

/**
 * Does something until the router answers, with a longer wait each time. Refusals are not tried again.
 * @param {() => Promise<T>} work
 * @param {AbortSignal} [signal]
 * @param {(error: ApiError) => void} [delayed]  Told why it is tried again.
 * @returns {Promise<T>}
 * @template T
 */
export async function insist(work, signal, delayed) {
  const who = Symbol("waits");
  try {
    for (let failures = 1; ; failures += 1) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof ApiError && error.isAway)) throw error;
        noteAway(error, who);
        delayed?.(error);
        await wait(delay(failures, Math.random()), signal);
      }
    }
  } finally {
    noteBack(who);
  }
}

/**
 * Does something over and over while the page is seen, until the signal.
 * @param {() => Promise<void>} work
 * @param {number} every  Milliseconds.
 * @param {(error: Error) => void} failed  Told of refusals.
 */
export async function poll(work, every, signal, failed) {
  while (!signal.aborted) {
    try {
      await seen(signal);
      await insist(work, signal);
      await wait(every, signal);
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
      await wait(every * 5, signal).catch(() => {});
    }
  }
}

/** Waits until the page is seen; ends early, by an error, with the signal. */
export function seen(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}
