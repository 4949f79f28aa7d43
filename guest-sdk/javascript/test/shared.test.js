import assert from "node:assert/strict";
import { test } from "node:test";

import { cell, cells, emit, handler, Retry, shared } from "weir-guest";
import { event, Host, Waits } from "weir-guest/testing";

const run = (host, key, handle) => host.deliver(handler((e) => void handle(e)), event("a", { key }));
const bytes = (text) => new TextEncoder().encode(text);

test("shared cells are those of all keys, and kept only by success", () => {
  const host = new Host();
  const add = () => shared.cell("sum", { default: 0 }).update((sum) => sum + 1);
  run(host, "a", add);
  run(host, "b", add);
  const fails = () => {
    add();
    throw new Retry("no");
  };
  assert.throws(() => run(host, "b", fails), new Retry("no"));
  assert.equal(host.sharedJson("sum"), 2);
  assert.deepEqual(host.shared("sum"), bytes("2"));

  host.setShared("sum", 40);
  host.setShared("raw", Uint8Array.of(0, 255));
  run(host, "c", () => {
    assert.equal(shared.cell("sum").get(), 40);
    assert.equal(cells.get("sum"), undefined);
    assert.deepEqual(shared.get("raw"), Uint8Array.of(0, 255));
    shared.delete("sum");
    assert.equal(shared.get("sum"), undefined);
    shared.set("text", "ü");
  });
  assert.equal(host.shared("sum"), undefined);
  assert.deepEqual(host.shared("text"), bytes("ü"));
});

test("shared cells hold what cells hold", () => {
  run(new Host(), "a", () => {
    for (const value of [1, "ü", [1, null], { ü: 0.5 }]) {
      cell("c").set(value);
      shared.cell("c").set(value);
      assert.deepEqual(shared.cell("c").get(), value);
      assert.deepEqual(shared.get("c"), cells.get("c"));
    }
    shared.cell("c").delete();
    assert.equal(shared.cell("c").get(), undefined);
    assert.deepEqual(shared.cell("c", { default: [] }).get(), []);
    assert.equal(shared.cell("c").name, "c");
  });
});

test("what is wrong names the shared cell or the lock", () => {
  run(new Host(), "a", () => {
    shared.set("bad", "{");
    assert.throws(() => shared.cell("bad").get(), /^Error: shared cell "bad" does not hold JSON/);
    assert.throws(() => shared.cell("bad").set(undefined), /shared cell "bad": undefined has no form in JSON/);
    assert.throws(() => shared.set("bad", 1), /shared cell "bad" takes a Uint8Array or a string, not a number/);
    assert.throws(() => shared.get(1), /a shared cell's name is a string, not a number/);
    for (const lock of [shared.lock, shared.tryLock]) {
      for (const ms of [-1, NaN, "60", undefined]) assert.throws(() => lock("van", ms), /lock "van": it is held for milliseconds/);
      assert.throws(() => lock(1, 1), /a lock's name is a string, not a number/);
    }
    assert.equal(shared.lock("van", Infinity), 1);
  });
});

test("a lock is held from event to event", () => {
  const host = new Host();
  const token = (key, lock = shared.lock) => run(host, key, () => emit("token", lock("van", 60_000) ?? null)).emitted[0].json();
  const unlock = (key) => run(host, key, () => shared.unlock("van"));
  assert.deepEqual([token("a"), token("a"), host.lockHolder("van")], [1, 1, "a"]);
  unlock("b");
  assert.equal(token("b", shared.tryLock), null);
  unlock("a");
  assert.equal(token("b", shared.tryLock), 2);
  host.breakLock("van");
  host.breakLock("never");
  assert.equal(host.lockHolder("van"), undefined);
  assert.equal(token("a"), 3);
});

test("nothing of an event that waits is kept", () => {
  const host = new Host();
  run(host, "a", () => shared.lock("van", 60_000));
  const waits = () => {
    cells.set("seen", "1");
    shared.set("seen", "1");
    shared.lock("other", 60_000);
    shared.lock("van", 60_000);
  };
  const stubborn = () => {
    try {
      waits();
    } catch {
      // As a handler that wants to go on, whatever happens.
    }
  };
  const expected = (error) => error instanceof Waits && error instanceof Retry && error.lock === "van" && error.message === 'waits for lock "van"';
  for (const handle of [waits, stubborn]) {
    assert.throws(() => run(host, "b", handle), expected);
    assert.deepEqual([host.cellNames("b"), host.shared("seen"), host.lockHolder("other")], [[], undefined, undefined]);
  }
});
