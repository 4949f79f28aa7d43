// `make test`

import assert from "node:assert/strict";
import { test } from "node:test";

import { event, Host } from "weir-guest/testing";

import { handle } from "./handler.js";

const sent = (door) => new Host().deliver(handle, event("courier.sent.7", { key: "7", json: door })).emitted;

test("who finds the door comes back and says how it went", () => {
  assert.deepEqual(sent("open")[0].json(), { delivered: true });
  assert.deepEqual(sent("closed")[0].json(), { delivered: false });
  assert.deepEqual(sent("nowhere"), []);
});

test("anything else is no door", () => {
  assert.throws(() => sent("ajar"), { name: "Reject" });
});
