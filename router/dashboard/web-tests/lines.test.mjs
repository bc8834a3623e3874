// Lines and places: what is held is all there is between two places, whatever comes in what order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Lines } from "../web/js/lines.js";
import { compare, cursorBefore, lineOf, parsePlace, placeOfTime, placeText, timeOfPlace } from "../web/js/place.js";

const line = (at, row = at) => ({ at: String(1_767_000_000_000_000_000n + BigInt(at)), row, message: `m${at}`, device: at % 2 ? "odd" : "even" });
const rows = (lines) => lines.items.map((item) => item.row);
const range = (from, to) => Array.from({ length: to - from }, (_, index) => line((from + index) * 1000, from + index));

test("places are ordered by time, then by row, whatever their length", () => {
  assert.ok(compare({ at: "9", row: 5 }, { at: "10", row: 1 }) < 0);
  assert.ok(compare({ at: "10", row: 2 }, { at: "10", row: 1 }) > 0);
  assert.equal(compare({ at: "1767323045000000001", row: 7 }, { at: "1767323045000000001", row: 7 }), 0);
});

test("a place is read and written, and nothing else is one", () => {
  assert.equal(placeText(parsePlace("1767323045000000001-7")), "1767323045000000001-7");
  for (const text of ["", null, "1", "a-b", "1-2-3", "-1-2", "1-2 "]) assert.equal(parsePlace(text), null);
  assert.deepEqual(lineOf({ message: "x", place: "12-3" }), { message: "x", at: "12", row: 3 });
});

test("a page of order oldest from the cursor before a place begins with it", () => {
  assert.equal(cursorBefore({ at: "12", row: 3 }), "12-2");
  assert.equal(cursorBefore({ at: "12", row: 0 }), "11-18446744073709551615");
  assert.equal(timeOfPlace(parsePlace(placeOfTime(1767323045123))), 1767323045123);
});

test("arrivals stand where their time belongs, each once", () => {
  const lines = new Lines();
  lines.reset([line(10), line(30)], { moreUp: false, moreDown: false });
  assert.equal(lines.arrive([line(40), line(20), line(40), line(5)], true), 1);
  assert.deepEqual(rows(lines), [5, 10, 20, 30, 40]);
});

test("what arrives before the first line is left to the page above, and told", () => {
  const lines = new Lines();
  lines.reset(range(10, 20), { moreUp: true, moreDown: false });
  lines.arrive([line(3000, 3)], true);
  assert.deepEqual([lines.length, lines.late], [10, 1]);
  lines.prepend(range(0, 10), false);
  assert.deepEqual([lines.length, lines.late, lines.moreUp], [20, 0, false]);
});

test("nothing is missing where a page and the tail meet", () => {
  const lines = new Lines();
  lines.reset(range(0, 5), { moreUp: false, moreDown: true });
  lines.arrive(range(5, 8), false);
  assert.equal(lines.length, 5, "there is a page between");
  lines.startJoin();
  lines.arrive(range(9, 12), false);
  lines.append(range(5, 10), false);
  assert.deepEqual(rows(lines), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  assert.equal(lines.moreDown, false);
});

test("a page that is not the last leaves the end open", () => {
  const lines = new Lines();
  lines.reset([], { moreUp: true, moreDown: true });
  lines.startJoin();
  lines.arrive(range(50, 60), false);
  lines.append(range(0, 10), true);
  assert.deepEqual([lines.length, lines.moreDown], [10, true]);
});

test("when too many arrive during a page, the page is not the last", () => {
  const lines = new Lines();
  lines.reset(range(0, 1), { moreUp: false, moreDown: true });
  lines.startJoin();
  lines.arrive(range(2, 6000), false);
  lines.append(range(1, 2), false);
  assert.deepEqual([lines.length, lines.moreDown], [2, true]);
});

test("following cuts the beginning, reading closes the end, and both are known", () => {
  const following = new Lines(5000);
  following.reset(range(0, 5000), { moreUp: false, moreDown: false });
  following.arrive(range(5000, 5001), true);
  assert.deepEqual([following.length, following.last.row, following.moreUp, following.moreDown], [4900, 5000, true, false]);
  const reading = new Lines(5000);
  reading.reset(range(0, 5000), { moreUp: false, moreDown: false });
  reading.arrive(range(5000, 5001), false);
  assert.deepEqual([reading.length, reading.first.row, reading.moreUp, reading.moreDown], [4900, 0, false, true]);
  assert.equal(reading.arrive([line(9e6, 9000)], false), 1, "still counted as waiting");
  assert.equal(reading.length, 4900);
});

test("memory is bounded by what lines weigh, too", () => {
  const lines = new Lines(1000, 100_000);
  lines.reset([], { moreUp: false, moreDown: false });
  const heavy = range(0, 100).map((item) => ({ ...item, message: "x".repeat(4800) }));
  lines.arrive(heavy, true);
  assert.ok(lines.bytes <= 100_000 && lines.length === 10, `${lines.length} lines, ${lines.bytes} bytes`);
  assert.equal(lines.last.row, 99);
});

test("a hundred thousand arrivals are taken in without quadratic work", () => {
  const lines = new Lines();
  lines.reset([], { moreUp: false, moreDown: false });
  for (let from = 0; from < 300_000; from += 1000) lines.arrive(range(from, from + 1000), true);
  assert.ok(lines.length <= 100_000 && lines.length > 90_000);
  assert.equal(lines.last.row, 299_999);
});
