// Questions and their addresses, the stream's messages, levels in force, bars, waits.

import assert from "node:assert/strict";
import { test } from "node:test";
import { delay } from "../web/js/backoff.js";
import { bars, height, spanWith, stepFor, wider, widerSpan } from "../web/js/bars.js";
import { fallback, inForce, parseSources, sourcesText, tree } from "../web/js/levels.js";
import { changed, conditions, format, isOpen, isSame, parse } from "../web/js/question.js";
import { deviceOf, pageOf } from "../web/js/route.js";
import { Messages } from "../web/js/sse.js";

test("an address holds the whole question and the place, and comes back", () => {
  const address = "?q=a+b%25&re=1&case=1&level=warn&device=a,b&group=eu&source=nginx&filter=user+%3D+%22ann%22&since=2026-01-02T03:04:05Z&until=2026-01-02T04:04:05Z&at=1767323045000000000-7&event=1767323045000000000-7";
  const question = parse(address);
  assert.equal(format(question), address);
  assert.deepEqual(parse(format(question)), question);
  assert.equal(format(parse("")), "");
});

test("what an address must not say is left out", () => {
  const question = parse("?level=loud&since=never&until=5m&at=here&span=x&device=a,,%20b,");
  assert.deepEqual([question.level, question.since, question.until, question.at, question.span, question.device], ["", "", "", "", "1h", "a,b"]);
});

test("a question goes to the API as its parameters", () => {
  assert.deepEqual(conditions(parse("?q=a.b/c&level=error&since=2h")), { grep: "(?i)a\\.b\\/c", level: "error", since: "2h" });
  assert.deepEqual(conditions(parse("?q=a.b&re=1&case=1&since=2h"), false), { grep: "a.b" });
  assert.ok(isOpen(parse("?since=1h")) && !isOpen(parse("?until=2026-01-02T03:04:05Z")));
});

test("another place or span is the same question, another condition is not", () => {
  assert.ok(isSame(parse("?q=a&at=1-2&span=6h"), parse("?q=a")));
  assert.ok(!isSame(parse("?q=a"), parse("?q=a&case=1")));
  assert.equal(format(changed(parse("?q=a&at=1-2&event=1-2"), { level: "warn" })), "?q=a&level=warn");
});

test("messages of a stream are put together from pieces cut anywhere", () => {
  const stream = ": here\n\nid: 6\nevent: history\ndata: end\n\nid: 7\r\ndata: {\"a\":1}\r\n\r\ndata: two\ndata: lines\n\nevent: empty\n\n";
  for (let size = 1; size < 20; size += 1) {
    const messages = new Messages();
    const found = [];
    for (let from = 0; from < stream.length; from += size) found.push(...messages.take(stream.slice(from, from + size)));
    assert.deepEqual(found, [{ type: "history", data: "end" }, { type: "message", data: '{"a":1}' }, { type: "message", data: "two\nlines" }]);
    assert.equal(messages.lastId, "7");
  }
});

test("paths are pages", () => {
  assert.deepEqual(["/", "/logs", "/devices/lamp-7", "/levels", "/nowhere"].map(pageOf), ["fleet", "logs", "device", "levels", "fleet"]);
  assert.deepEqual(["/api/v1/logs/download", "/assets/x.js", "/metrics"].map(pageOf), [null, null, null]);
  assert.equal(deviceOf("/devices/a%3Ab"), "a:b");
});

test("waits double to a bound and are never all the same", () => {
  assert.deepEqual([1, 2, 3, 20].map((failures) => delay(failures, 1)), [500, 1000, 2000, 30_000]);
  assert.equal(delay(3, 0), 1000);
});

const fleet = (groups, standard = null, standardOverride = null) => ({ groups: new Map(groups.map((group) => [group.name, group])), standard, standardOverride });
const NOW = Date.parse("2026-01-02T03:00:00Z");
const until = (minutes) => new Date(NOW + minutes * 60_000).toISOString();

test("the nearest group decides, else the default, else INFO", () => {
  const groups = [{ name: "world", level: "WARN" }, { name: "eu", parent: "world", ancestors: ["world"] }, { name: "us", parent: "world", ancestors: ["world"], level: "DEBUG" }];
  const levels = (standard) => ["eu", "us", null].map((name) => inForce(name, fleet(groups, standard), NOW)).map(({ level, from }) => `${level} ${from}`);
  assert.deepEqual(levels({ level: "ERROR" }), ["WARN world", "DEBUG us", "ERROR default"]);
  assert.deepEqual(levels(null), ["WARN world", "DEBUG us", "INFO "]);
  assert.deepEqual(inForce("us", fleet(groups, { level: "INFO", disabled: true }), NOW), { level: "DISABLED", from: "default", off: true });
});

test("a temporary level goes first while it runs, and one sees what comes then", () => {
  const groups = [{ name: "world", override: { level: "WARN", until: until(30) } }, { name: "eu", ancestors: ["world"], level: "ERROR", override: { level: "DEBUG", until: until(10) } }];
  const all = fleet(groups, { level: "INFO" }, { level: "DEBUG", until: until(60) });
  const now = inForce("eu", all, NOW);
  assert.deepEqual(now, { level: "DEBUG", from: "eu", until: until(10) });
  assert.deepEqual(fallback("eu", all, now), { level: "WARN", from: "world", until: until(30) });
  assert.deepEqual(inForce("eu", all, NOW + 40 * 60_000), { level: "DEBUG", from: "default", until: until(60) });
  assert.deepEqual(inForce("eu", all, NOW + 70 * 60_000), { level: "ERROR", from: "eu" });
  assert.equal(fallback("eu", all, inForce("eu", all, NOW + 70 * 60_000)), null);
});

test("groups stand under their parents, and at the top where these are not to be seen", () => {
  const rows = tree(fleet([{ name: "z" }, { name: "b", parent: "a" }, { name: "a" }, { name: "c", parent: "b" }, { name: "k", parent: "hidden" }]).groups);
  assert.deepEqual(rows.map(({ group, depth }) => `${depth}${group.name}`), ["0a", "1b", "2c", "0k", "0z"]);
});

test("levels of sources are read, and what is wrong is named", () => {
  assert.deepEqual(parseSources("nginx=error, app = DEBUG,"), { nginx: "ERROR", app: "DEBUG" });
  assert.equal(sourcesText({ nginx: "ERROR", app: "DEBUG" }), "nginx=ERROR, app=DEBUG");
  assert.throws(() => parseSources("nginx=LOUD"), /nginx=LOUD/);
  assert.throws(() => parseSources("nginx"), /nginx/);
});

test("there is a bar for every step, at widths that people count in", () => {
  assert.equal(stepFor(3_600_000, 120), 30_000);
  assert.equal(stepFor(400 * 86_400_000, 60), 604_800_000 * 1);
  const all = bars([{ time: "1970-01-01T00:00:20Z", debug: 0, info: 3, warn: 0, error: 1 }], 5000, 40_000, 10_000);
  assert.deepEqual(all.map((bar) => [bar.at, bar.total]), [[0, 0], [10_000, 0], [20_000, 4], [30_000, 0]]);
  assert.equal(height(0, 10), 0);
  assert.ok(height(1, 1e6) >= 0.04 && height(10, 10) === 1);
});

test("zooming out doubles a range but does not pass now, and widens what has no bounds", () => {
  assert.deepEqual(wider(100, 200, 1000), { from: 50, until: 250 });
  assert.deepEqual(wider(100, 200, 210), { from: 10, until: 210 });
  assert.equal(widerSpan(3_600_000), 21_600_000);
  assert.equal(spanWith(4_000_000, 3_600_000), 21_600_000);
  assert.equal(spanWith(1, 3_600_000), 3_600_000);
});
