// What devices wrote, as it is shown; and numbers and times.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, lag, Rates, short, whole } from "../web/js/number.js";
import { cut, excerpt, hits, isDear, matcher, pieces, visible } from "../web/js/text.js";
import * as time from "../web/js/time.js";

const search = (text, more = {}) => matcher({ text, regex: false, exact: false, ...more });
const shown = (text, pattern, lines) => pieces(text, pattern, lines).map(({ kind, text: part }) => [kind, part]);

test("control characters, marks of direction and halves of characters are written out", () => {
  assert.equal(visible("a\u001b[31mb\u0000\n\t\r\u007f\u0085"), "a\\x1b[31mb\\0\\n\\t\\r\\x7f\\x85");
  assert.equal(visible("\u202eevil\u202c\u200b\ufeff\u2066"), "\\u{202e}evil\\u{202c}\\u{200b}\\u{feff}\\u{2066}");
  assert.equal(visible("half \ud83d of one"), "half \\u{d83d} of one");
  assert.equal(visible("whole 😀 ünï"), "whole 😀 ünï");
});

test("an open event keeps its line breaks", () => {
  assert.deepEqual(shown("a\n\tb\u0007", null, true), [["text", "a\n\tb"], ["escape", "\\x07"]]);
});

test("matches are marked without regard to capitals unless asked, across escapes too", () => {
  assert.deepEqual(shown("Disk full, DISK ok", search("disk")), [["hit", "Disk"], ["text", " full, "], ["hit", "DISK"], ["text", " ok"]]);
  assert.deepEqual(shown("Disk DISK", search("DISK", { exact: true })), [["text", "Disk "], ["hit", "DISK"]]);
  assert.deepEqual(pieces("a\u0007b", search("a\u0007")), [{ kind: "hit", text: "a" }, { kind: "escape", text: "\\x07", hit: true }, { kind: "text", text: "b" }]);
});

test("plain text is no pattern, and a pattern is one", () => {
  assert.deepEqual(hits("a.b axb (c", search("a.b")), [[0, 3]]);
  assert.deepEqual(hits("a.b axb", search("a.b", { regex: true })), [[0, 3], [4, 7]]);
  assert.equal(search("(", { regex: true }), null);
  assert.equal(search(""), null);
  assert.deepEqual(hits("abc", search("x*", { regex: true })), []);
});

test("patterns that would take for ever are not tried", () => {
  for (const dear of ["(a+)+$", "(a|aa)*b", "((a)b)+", "(\\w+\\s?)+$"]) assert.ok(isDear(dear), dear);
  for (const cheap of ["time(d )?out", "a+b+", "(GET|POST) /", "[a-z(+]+", "\\(a+\\)+"]) assert.ok(!isDear(cheap), cheap);
  assert.equal(search("(a+)+$", { regex: true }), null);
});

test("patterns that repeat many parts one behind the other are not tried", () => {
  for (const dear of [".*.*.*.*.*X", "a+b+c+", "a*?b{2,}c+", ".{1,}.{0,}.*X", "a{0,5000}b{0,5000}c{0,5000}"]) assert.ok(isDear(dear), dear);
  for (const cheap of [".*X.*", "[*+]+[*+]+[*+]", "\\*\\+\\*a+b+", "a{3}b{1,4}c{2}d+e+", "a?b?c?", "\\{1,}\\{1,}\\{1,}"]) assert.ok(!isDear(cheap), cheap);
  assert.equal(search(".*.*.*X", { regex: true }), null);
});

test("the more a pattern repeats, the less of a line it is looked for in", () => {
  const line = `${"a".repeat(500)}X${"a".repeat(19_000)}X`;
  assert.equal(hits(line, search("x")).length, 2);
  assert.deepEqual(hits(line, search("a.?X", { regex: true })), hits(line, /a.?X/giu));
  assert.equal(hits(line, search("a+X", { regex: true })).length, 1);
  const from = performance.now();
  assert.deepEqual(hits("a".repeat(20_000), search(".*.*X", { regex: true })), []);
  assert.ok(performance.now() - from < 5000);
});

test("an excerpt shows the match, and never half a character", () => {
  const long = `${"x".repeat(3000)} needle ${"y".repeat(100)}`;
  const found = excerpt(long, search("needle"), 400);
  assert.ok(found.before && found.text.includes("needle") && found.text.length <= 400);
  assert.deepEqual(excerpt("short", null, 400), { text: "short", before: false, after: false });
  assert.equal(cut("ab😀", 3), "ab");
  assert.equal(cut("ab😀", 4), "ab😀");
});

test("times are written in UTC and in the zone of the browser, to the last digit", () => {
  const ms = Date.parse("2026-01-02T03:04:05.678Z");
  assert.equal(time.clock(ms, true), "03:04:05.678");
  assert.equal(time.day(ms, true), "Fri 2 Jan 2026");
  assert.equal(time.exact("2026-01-02T03:04:05.678901234Z", true), "2026-01-02 03:04:05.678901234 UTC");
  assert.match(time.exact("2026-01-02T03:04:05.678901234Z", false), /\.678901234 [+-]\d\d:\d\d$/);
  assert.equal(time.exact("yesterday", true), "yesterday");
  assert.equal(time.moment(ms, true, ms), "03:04:05");
  assert.equal(time.moment(ms, true, ms + 86_400_000), "2 Jan 03:04:05");
  assert.equal(time.moment(ms, true, ms + 400 * 86_400_000), "2 Jan 2026 03:04:05");
  assert.equal(time.inputTime(time.inputText(ms, true), true), ms - 678);
  assert.equal(time.inputTime(time.inputText(ms, false), false), ms - 678);
  assert.ok(Number.isNaN(time.inputTime("", true)));
});

test("spans are read and written", () => {
  assert.equal(time.spanOf("90s"), 90_000);
  assert.equal(time.spanOf("7d"), 604_800_000);
  for (const text of ["", "7", "d", "1.5h", "-1h", null]) assert.equal(time.spanOf(text), null);
  assert.equal(time.spanText(5_400_000), "90m");
  assert.equal(time.spanText(86_400_000), "1d");
  assert.equal(time.boundTime("1h", 7_200_000), 3_600_000);
  assert.equal(time.relative(1000, 500), "now");
  assert.equal(time.relative(0, 90_000_000), "25 h ago");
  assert.equal(time.relative(300_000, 0), "in 5 min");
});

test("numbers are short, whole, bytes and lags", () => {
  assert.deepEqual([0, 7, 1204, 9960, 34_000, 5_600_000].map(short), ["0", "7", "1.2k", "10k", "34k", "5.6M"]);
  assert.equal(short(0.25), "0.3");
  assert.equal(whole(1234567), "1,234,567");
  assert.deepEqual([512, 1536, 36_000_000].map(bytes), ["512 B", "1.5 KiB", "34 MiB"]);
  assert.deepEqual([12, 2100, 180_000, 7_200_000].map(lag), ["12 ms", "2.1 s", "3 min", "2.0 h"]);
});

test("a rate is a difference over time, also of a counter that began anew", () => {
  const rates = new Rates();
  assert.equal(rates.rate("a", 100, 0), null);
  assert.equal(rates.rate("a", 150, 2000), 25);
  assert.equal(rates.rate("a", 10, 3000), 10);
  assert.equal(rates.rate("b", 10, 3000), null);
});
