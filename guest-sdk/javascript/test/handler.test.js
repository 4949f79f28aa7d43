import assert from "node:assert/strict";
import { test } from "node:test";

import { cell, cells, config, emit, handler, log, Reject, Retry, timers } from "weir-guest";
import { event, Host } from "weir-guest/testing";

/** Delivers one event to a handler of this function. */
const once = (handle, delivered = event("a.b", { key: "k" }), host = new Host()) => host.deliver(handler(handle), delivered);

test("an event has all that the message had", () => {
  let seen;
  const time = 1_700_000_000_123_456_789n;
  once((e) => (seen = e) && undefined, event("a.b", { key: "k", stream: "S", sequence: 7, time, headers: { Who: "me" }, data: "{}" }));
  assert.equal(seen.id, "S:7");
  assert.equal(seen.sequence, 7);
  assert.equal(seen.time, time);
  assert.equal(seen.date.toISOString(), "2023-11-14T22:13:20.123Z");
  assert.equal(seen.timer, undefined);
  assert.equal(seen.header("wHO"), "me");
  assert.equal(seen.header("other"), undefined);
  assert.deepEqual(seen.json(), {});
});

test("data that cannot be read is rejected", () => {
  const json = handler((e) => void e.json());
  const refusal = (data) => assert.throws(() => new Host().deliver(json, event("a", { data })), Reject);
  refusal("{");
  refusal("");
  refusal(Uint8Array.of(0x22, 0xff, 0x22));
});

test("effects are kept as a whole or not at all", () => {
  const host = new Host();
  const handle = handler((e) => {
    cell("n", { default: 0 }).update((n) => n + 1);
    emit("out", {});
    if (e.header("Fail")) throw new Retry(e.header("Fail"));
  });
  host.deliver(handle, event("a", { key: "k" }));
  assert.throws(() => host.deliver(handle, event("a", { key: "k", headers: { Fail: "no" } })), new Retry("no"));
  assert.equal(host.cellJson("k", "n"), 1);
  assert.equal(new TextDecoder().decode(host.cell("k", "n")), "1");
});

test("a promise is refused, since nobody would wait for it", () => {
  assert.throws(() => once(async () => {}), /returned a promise/);
  assert.throws(() => handler(undefined), /takes the function/);
});

test("cells hold bytes", () => {
  const host = new Host();
  const seen = {};
  once(
    () => {
      cells.set("b:2", Uint8Array.of(0, 255));
      cells.set("b:1", "ü");
      cells.set("a", new ArrayBuffer(1));
      seen.keys = cells.keys("b:");
      seen.many = cells.getMany(["b:2", "none"]);
      cells.delete("a");
      seen.gone = cells.get("a");
      assert.throws(() => cells.set("c", 1), /takes a Uint8Array or a string, not a number/);
      assert.throws(() => cells.get(1), /a cell's name is a string, not a number/);
    },
    event("a", { key: "k" }),
    host,
  );
  assert.deepEqual(seen.keys, ["b:1", "b:2"]);
  assert.deepEqual(seen.many, [Uint8Array.of(0, 255), undefined]);
  assert.equal(seen.gone, undefined);
  assert.deepEqual(host.cellNames("k"), ["b:1", "b:2"]);
  assert.deepEqual(host.cell("k", "b:1"), Uint8Array.of(0xc3, 0xbc));
});

test("typed cells hold JSON, and a default is never shared", () => {
  const host = new Host();
  const list = cell("list", { default: [] });
  const push = handler((e) => {
    list.get().push("lost");
    list.update((all) => [...all, e.sequence]);
  });
  host.deliver(push, event("a", { key: "k" }));
  host.deliver(push, event("a", { key: "k" }));
  host.deliver(push, event("a", { key: "other" }));
  assert.deepEqual(host.cellJson("k", "list"), [1, 2]);
  assert.deepEqual(host.cellJson("other", "list"), [3]);
  once(() => {
    assert.equal(cell("none").get(), undefined);
    assert.throws(() => cell("none").set(undefined), /cell "none": undefined has no form in JSON/);
    cells.set("bad", "{");
    assert.throws(() => cell("bad").get(), /cell "bad" does not hold JSON/);
  });
});

test("emits carry compact JSON or bytes, and headers", () => {
  const { emitted } = once(() => {
    emit("a.1", { key: "N1", n: 17, of: "F:1" });
    emit("a.2", Uint8Array.of(1, 2), { One: "1", Two: ["2", "3"] });
    emit("a.3", "text", [{ name: "N", value: "v" }]);
    assert.throws(() => emit("a.4", undefined), /the payload for a.4: undefined has no form in JSON/);
    assert.throws(() => emit("a.5", 1, { N: 5 }), /header N is a string, not a number/);
  });
  assert.equal(emitted.length, 3);
  assert.equal(emitted[0].text(), '{"key":"N1","n":17,"of":"F:1"}');
  assert.deepEqual(emitted[1].data, Uint8Array.of(1, 2));
  assert.deepEqual(emitted[1].headers.map(({ name, value }) => `${name}: ${value}`), ["One: 1", "Two: 2", "Two: 3"]);
  assert.equal(emitted[2].text(), '"text"');
});

test("timers are exact, can be asked for, and fire", () => {
  const host = new Host();
  const time = 1_700_000_000_123_456_789n;
  const handle = handler((e) => {
    if (e.timer) return emit("fired", { name: e.timer, data: e.json(), at: String(e.time), due: timers.due(e.timer) ?? null });
    timers.after("soon", 1.5, { a: 1 });
    timers.set("date", new Date(1_000));
    timers.cancel("date");
    assert.equal(timers.due("soon"), time + 1_500_000n);
    assert.equal(timers.due("date"), undefined);
    assert.throws(() => timers.set("x", 5), /a Date, or a bigint/);
    assert.throws(() => timers.set("x", new Date(NaN)), /invalid Date/);
    assert.throws(() => timers.set("x", -1n), RangeError);
    assert.throws(() => timers.set("x", 1n << 63n), RangeError);
    assert.throws(() => timers.after("x", -1), RangeError);
  });
  const effects = host.deliver(handle, event("a", { key: "k", time }));
  assert.deepEqual(effects.timers.map(({ name, at }) => [name, at]), [["soon", time + 1_500_000n], ["date", 1_000_000_000n], ["date", undefined]]);
  const fired = host.fire(handle, "k", "soon").emitted[0].json();
  assert.deepEqual(fired, { name: "soon", data: { a: 1 }, at: String(time + 1_500_000n), due: null });
  assert.throws(() => host.fire(handle, "k", "soon"), /no timer "soon"/);
});

test("settings and log lines", () => {
  const host = new Host({ config: { limit: "30", bad: "many" } });
  const circular = {};
  circular.self = circular;
  const effects = once(
    () => {
      assert.equal(config.get("limit"), "30");
      assert.equal(config.get("none"), undefined);
      assert.equal(config.number("limit"), 30);
      assert.equal(config.number("none", 5), 5);
      assert.throws(() => config.number("none"), /\[config\] of handler.toml has no "none"/);
      assert.throws(() => config.number("bad"), /bad = "many" is not a number/);
      log.info("n is", 5, { big: 1n, map: new Map([["a", new Set([1])]]) }, undefined);
      log.warn(circular);
      log.error(new Error("outer", { cause: new TypeError("inner") }));
    },
    event("a"),
    host,
  );
  assert.equal(effects.log[0].message, 'n is 5 {"big":"1","map":{"a":[1]}} undefined');
  assert.equal(effects.log[1].message, "[object Object]");
  assert.match(effects.log[2].message, /Error: outer\n.*\n?.*caused by: TypeError: inner/s);
});

test("outside of an event the host says how to get one", () => {
  assert.throws(() => emit("a", 1), /weir-guest\/testing/);
});
