// The live tail: a stream of server-sent events that is opened again when it breaks, behind what was told last.

import { ApiError, address, noteAway, noteBack, seen, send, wait } from "./api.js";
import { delay } from "./backoff.js";
import { lineOf } from "./place.js";
import { Messages } from "./sse.js";

/** The router says every 15 s that it is there; after so long it is not, ms. */
const SILENCE = 40_000;
/** Hidden for so long the stream is given up, ms: browsers have few connections for all their pages. */
const HIDDEN = 60_000;
/** After so long a stream is not gone on with, ms: too much may have come. */
const LONG = 600_000;

export class Tail {
  #params;
  #told;
  #stop = new AbortController();
  #lastId = "";
  #heard = Date.now();
  #hidden = null;
  #current = null;
  /** What comes belongs to the tail: it is gone on with, or what was there before has been told. */
  #begun = false;
  #failed = false;
  /** Signs of life since the store failed. */
  #signs = 0;
  #looks = () => this.#visibility();

  /**
   * @param {Record<string, string>} params  The conditions.
   * @param {object} told
   * @param {(isNew: boolean) => void} told.open  It stands; new when events may have been missed before.
   * @param {(lines: object[]) => void} told.lines
   * @param {(error: Error) => void} told.away  It broke and is opened again, or the store failed and goes on.
   * @param {(error: Error) => void} told.refused  It is not opened again.
   */
  constructor(params, told) {
    this.#params = params;
    this.#told = told;
    document.addEventListener("visibilitychange", this.#looks);
    this.#run();
  }

  close() {
    this.#stop.abort();
    clearTimeout(this.#hidden);
    document.removeEventListener("visibilitychange", this.#looks);
    noteBack(this);
  }

  #visibility() {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#current?.abort(), HIDDEN);
  }

  async #run() {
    const signal = this.#stop.signal;
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#stream(() => (failures = 0));
        failures += 1;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && !error.isAway) {
          noteBack(this);
          return this.#told.refused(error);
        }
        failures += 1;
        if (!document.hidden) {
          noteAway(error, this);
          this.#told.away(error);
        }
      }
      await wait(delay(failures, Math.random()), signal).catch(() => {});
      await seen(signal).catch(() => {});
    }
  }

  async #stream(alive) {
    const current = new AbortController();
    this.#current = current;
    const signal = AbortSignal.any([this.#stop.signal, current.signal]);
    if (Date.now() - this.#heard > LONG) this.#lastId = "";
    const headers = this.#lastId ? { "last-event-id": this.#lastId } : {};
    this.#begun = this.#lastId !== "";
    this.#failed = false;
    let timer = setTimeout(() => current.abort(), SILENCE);
    try {
      // One event of history brings the id that stands for "now".
      const url = address("logs/tail", { ...this.#params, history: 1 });
      const response = await send(url, { headers, signal, patience: 0 });
      const messages = new Messages();
      noteBack(this);
      if (this.#begun) this.#told.open(false);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new ApiError(0, "Away", "The connection to the router ended.");
        clearTimeout(timer);
        timer = setTimeout(() => current.abort(), SILENCE);
        this.#heard = Date.now();
        noteBack();
        alive();
        this.#take(messages.take(value));
        this.#lastId = messages.lastId || this.#lastId;
      }
    } finally {
      clearTimeout(timer);
      current.abort();
    }
  }

  #take(messages) {
    const lines = [];
    for (const { type, data } of messages) {
      if (type === "history") this.#stands(true);
      else if (type === "failure") this.#fails(JSON.parse(data));
      else if (type === "message") {
        // Who sends what arrives after a failure goes on, and sends no history any more.
        if (this.#failed) this.#stands(!this.#begun);
        // Before the end of the history, what comes is older than the tail; pages bring it.
        if (this.#begun) lines.push(lineOf(JSON.parse(data)));
      }
    }
    if (lines.length > 0) this.#told.lines(lines);
    if (messages.length === 0 && this.#failed) this.#sign();
  }

  /** The store failed; the stream stands all the while. */
  #fails({ code, message }) {
    const error = new ApiError(503, code, message);
    this.#failed = true;
    this.#signs = 0;
    noteAway(error, this);
    this.#told.away(error);
  }

  /** The first sign of life comes before the store is tried again, so only the second says that it goes on. */
  #sign() {
    this.#signs += 1;
    if (this.#signs > 1) this.#stands(!this.#begun);
  }

  /** From here on nothing is missing; where the stream begins anew, pages bring what was before. */
  #stands(isNew) {
    this.#begun = true;
    this.#failed = false;
    noteBack(this);
    this.#told.open(isNew);
  }
}
