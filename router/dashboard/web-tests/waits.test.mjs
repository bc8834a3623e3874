// How pages wait for a router that is away or cannot answer yet, and how the tail goes on behind that.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { call, events, insist } from "../web/js/api.js";
import { LogStream } from "../web/js/logs/stream.js";
import { parse } from "../web/js/question.js";
import { Tail } from "../web/js/tail.js";
import { delayText } from "../web/js/tell.js";

const NOT_OPEN = [503, "ServiceUnavailable", "the store is not open yet"];
const BUSY = [429, "Throttling", "too many searches at once; try again in a moment"];

const refused = ([status, code, message]) => Response.json({ error: { code, message } }, { status });
const event = (row) => ({ place: `${row}-${row}`, time: "2026-01-02T03:04:05Z", device: "lamp-7", source: "app", level: "INFO", message: `event ${row}` });
const told = (row) => `id: ${row}\ndata: ${JSON.stringify(event(row))}\n\n`;
const FAILURE = `event: failure\ndata: {"code":"ServiceUnavailable","message":"the store: a file is damaged"}\n\n`;
const HERE = ": here\n\n";

let heard = [];
const away = ({ detail }) => heard.push(delayText(detail.error));
const back = () => heard.push("back");
const fetched = globalThis.fetch;

beforeEach(() => {
  heard = [];
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  events.addEventListener("away", away);
  events.addEventListener("back", back);
});

afterEach(() => {
  globalThis.fetch = fetched;
  delete globalThis.document;
  events.removeEventListener("away", away);
  events.removeEventListener("back", back);
});

/** Answers requests one after the other; waits are over at once. */
function answer(...answers) {
  const asked = [];
  globalThis.fetch = async (url) => {
    asked.push(url);
    const next = answers.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  const hurry = setInterval(() => events.dispatchEvent(new Event("try-now")), 5);
  return { asked, done: () => clearInterval(hurry) };
}

test("what the router cannot answer yet is tried again, and why is told in its words", async () => {
  const { asked, done } = answer(refused(NOT_OPEN), refused(BUSY), Response.json({ items: [] }));
  const delayed = [];
  await insist(() => call("logs"), undefined, (error) => delayed.push(error.code));
  done();
  assert.equal(asked.length, 3);
  assert.deepEqual(delayed, ["ServiceUnavailable", "Throttling"]);
  assert.deepEqual(heard, [
    "The store is not open yet. It is tried again by itself.",
    "Too many searches at once; try again in a moment. It is tried again by itself.",
    "back",
  ]);
});

test("another answer does not take back what still waits, but shows that the router is there", async () => {
  const stop = new AbortController();
  const { done } = answer(new TypeError("no network"), refused(NOT_OPEN), Response.json({ items: [] }));
  done();
  const failed = call("devices").catch((error) => error);
  assert.equal((await failed).status, 0);
  const waits = insist(() => call("logs"), stop.signal).catch(() => "given up");
  await new Promise((resolve) => setTimeout(resolve, 20));
  await call("devices");
  const silent = "The router does not answer. It is tried again by itself.";
  assert.deepEqual([heard[0], heard.at(-1)], [silent, "The store is not open yet. It is tried again by itself."]);
  stop.abort(new Error("left"));
  assert.equal(await waits, "given up");
  assert.equal(heard.at(-1), "back");
});

test("a refusal is not tried again and nobody waits", async () => {
  const { asked, done } = answer(refused([400, "InvalidRequest", "no"]));
  await assert.rejects(insist(() => call("logs")), { status: 400 });
  done();
  assert.deepEqual([asked.length, heard], [1, []]);
});

test("pages of a log are asked for again, and what was found before is kept", async () => {
  const items = (...rows) => rows.map((row) => event(row));
  const { asked, done } = answer(Response.json({ items: items(9, 8), next: "8-8" }), refused(BUSY), Response.json({ items: items(7) }));
  const delays = [];
  const stream = new LogStream(parse("?until=2026-01-02T04:00:00Z"), {
    around: (mutate) => mutate(),
    changed: () => delays.push(stream.delayed?.code),
    arrived() {},
  });
  await stream.start();
  done();
  assert.deepEqual(stream.lines.items.map((line) => line.message), ["event 7", "event 8", "event 9"]);
  assert.deepEqual([asked.length, asked[1] === asked[2], stream.error, stream.delayed], [3, true, null, null]);
  assert.ok(delays.includes("Throttling"));
});

/** What a tail tells of a stream that comes in such pieces. */
async function tailed(...portions) {
  const said = [];
  const encoder = new TextEncoder();
  let stream;
  globalThis.fetch = async (_, { signal }) => {
    signal.addEventListener("abort", () => stream.error(signal.reason));
    return new Response(new ReadableStream({ start: (controller) => (stream = controller) }));
  };
  const tail = new Tail({}, {
    open: (isNew) => said.push(isNew ? "new" : "on"),
    lines: (lines) => said.push(lines.map((line) => line.message).join()),
    away: () => said.push("away"),
    refused: () => said.push("refused"),
  });
  for (const portion of portions) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    stream.enqueue(encoder.encode(portion));
  }
  await new Promise((resolve) => setTimeout(resolve, 10));
  tail.close();
  return said;
}

test("a tail begins behind its history, however that is cut", async () => {
  const history = `data: ${JSON.stringify(event(5))}\n\nid: 6\nevent: history\ndata: end\n\n`;
  assert.deepEqual(await tailed(history, told(7)), ["new", "event 7"]);
  assert.deepEqual(await tailed(history.slice(0, history.indexOf("id:")), history.slice(history.indexOf("id:")), told(7)), ["new", "event 7"]);
});

test("a tail that fails goes on where it was", async () => {
  const history = "id: 6\nevent: history\ndata: end\n\n";
  assert.deepEqual(await tailed(history, FAILURE, HERE, FAILURE, HERE, HERE), ["new", "away", "away", "on"]);
  assert.deepEqual(await tailed(history, FAILURE, told(7)), ["new", "away", "on", "event 7"]);
  assert.ok(heard.includes("The store: a file is damaged. It is tried again by itself.") && heard.at(-1) === "back");
});

test("a tail whose history failed goes on as a new one, so that nothing is missing before it", async () => {
  assert.deepEqual(await tailed(FAILURE, HERE, HERE), ["away", "new"]);
  assert.deepEqual(await tailed(FAILURE, told(7), told(8)), ["away", "new", "event 7", "event 8"]);
  assert.deepEqual(await tailed(FAILURE + told(7)), ["away", "new", "event 7"]);
});
