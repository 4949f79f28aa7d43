import assert from "node:assert/strict";
import { test } from "node:test";

import { event, Host } from "weir-guest/testing";

import { handle } from "./handler.js";

test("counts per key, and says when a minute has passed", () => {
  const host = new Host();
  const time = new Date("2026-01-01T00:00:00Z");
  const first = host.deliver(handle, event("events.a", { key: "a", time, json: { amount: 5 } }));
  assert.deepEqual(first.emitted[0].json(), { key: "a", count: 1 });
  const second = host.deliver(handle, event("events.a", { key: "a", time, json: { amount: 1 } }));
  assert.deepEqual(second.emitted[0].json(), { key: "a", count: 2 });
  assert.deepEqual(second.timers, []);

  const quiet = host.fire(handle, "a", "quiet");
  assert.equal(quiet.emitted[0].subject, "counts.a");
  assert.deepEqual(quiet.emitted[0].json(), { key: "a", quiet: true });
  assert.equal(host.cellJson("a", "count"), 2);
});

test("what is not JSON is rejected", () => {
  assert.throws(() => new Host().deliver(handle, event("events.a", { key: "a", data: "no" })), { name: "Reject" });
});
