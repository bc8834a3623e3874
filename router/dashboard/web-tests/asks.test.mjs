// What pages ask of the API and whom they let do what; the router decides, they only must not mislead.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, address, part } from "../web/js/api.js";
import { counted, queryOf } from "../web/js/pages/fleet.js";
import { isOperator, isUnlimited, scope } from "../web/js/session.js";

test("an address carries what is asked and leaves out what is not", () => {
  assert.equal(address("logs", { device: "a,b", grep: "a b&c", level: "", cursor: undefined, limit: 5 }), "/api/v1/logs?device=a%2Cb&grep=a+b%26c&limit=5");
  assert.equal(address(`devices/${part("a:b/c")}`), "/api/v1/devices/a%3Ab%2Fc");
});

test("what is worth trying again is told from what is refused", () => {
  const away = [0, 429, 502, 503, 504].map((status) => new ApiError(status, "", "").isAway);
  const refused = [400, 401, 403, 404, 500].map((status) => new ApiError(status, "", "").isAway);
  assert.ok(away.every(Boolean) && !refused.some(Boolean));
});

test("a part of a name finds devices, and anything else is a query", () => {
  assert.equal(queryOf(""), "");
  assert.equal(queryOf("lamp-7"), 'name ~ "*lamp-7*"');
  assert.equal(queryOf("lamp*"), 'name ~ "*lamp*"');
  assert.equal(queryOf('model = "x1" and online'), 'model = "x1" and online');
});

test("roles and groups say what somebody may see", () => {
  const session = (role, groups) => ({ name: "ann", role, groups, sign_in: true });
  assert.equal(scope(session("admin", null)), "all of the fleet");
  assert.equal(scope(session("operator", ["eu", "us"])), "groups eu, us");
  assert.equal(scope(session("other", [])), "may see nothing here");
  assert.ok(isUnlimited(session("operator", null)) && !isUnlimited(session("operator", ["eu"])));
  assert.ok(!isOperator(session("other", [])) && !isOperator(null));
});

test("what was counted in part is the least that it is, and never none", () => {
  assert.deepEqual([0, 7, 1500, undefined].map((count) => counted(count, false)), ["0", "7", "1.5k", "–"]);
  assert.deepEqual([0, 7, 1500, undefined].map((count) => counted(count, true)), ["–", "≥ 7", "≥ 1.5k", "–"]);
});
