import assert from "node:assert/strict";
import { test } from "node:test";

import { makeU64Exact } from "../build/exact_u64.mjs";
import { bigint, bits } from "../src/host/u64.js";

const [I32, I64, F64] = [0x7f, 0x7e, 0x7c];
const NOPS = Array(12).fill(0x01);

const vector = (items) => [items.length, ...items.flat()];
const section = (id, content) => [id, ...size(content.length), ...content];
const size = (length) => [(length & 0x7f) | 0x80, length >> 7];
const name = (text) => vector([...Buffer.from(text)]);
const type = (parameters, results) => [0x60, ...vector(parameters), ...vector(results)];
const body = (...code) => [code.length + 2, 0, ...code, 0x0b];

/** A runtime in small: doubles go to and come from the host, integers nowhere. */
function module(exports = ["push_f64", "pop_f64", "push_u64", "pop_u64"]) {
  return [
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([type([I32, F64], []), type([I32], [F64]), type([I32, I64], []), type([I32], [I64])])),
    ...section(2, vector([[...name("h"), ...name("push"), 0, 0], [...name("h"), ...name("pop"), 0, 1]])),
    ...section(3, vector([0, 1, 2, 3])),
    ...section(7, vector(exports.map((short, index) => [...name(`wit_dylib_${short}`), 0, index + 2]))),
    ...section(10, vector([body(0x20, 0, 0x20, 1, 0x10, 0), body(0x20, 0, 0x10, 1), body(...NOPS), body(...NOPS, 0x42, 0)])),
  ];
}

/** A component that holds these core modules, the last of them in a component of its own. */
function component(...modules) {
  const header = [0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0];
  const last = [...header, ...section(1, modules.at(-1))];
  return Uint8Array.from([...header, ...modules.slice(0, -1).flatMap((m) => section(1, m)), ...section(4, last)]);
}

test("integers are pushed and popped as doubles of the same bits", async () => {
  const bytes = component(module());
  const before = bytes.length;
  makeU64Exact(bytes);
  assert.equal(bytes.length, before);

  const pushed = [];
  const value = 1_700_000_000_123_456_789n;
  const at = bytes.length - module().length;
  const host = { push: (_call, double) => pushed.push(double), pop: () => bits(value + 1n) };
  const { instance } = await WebAssembly.instantiate(bytes.subarray(at), { h: host });
  instance.exports.wit_dylib_push_u64(0, value);
  assert.equal(bigint(pushed[0]), value);
  assert.equal(instance.exports.wit_dylib_pop_u64(0), value + 1n);
  instance.exports.wit_dylib_push_f64(0, 0.5);
  assert.equal(pushed[1], 0.5);
});

test("anything but the one runtime that is expected is refused", () => {
  const other = module(["push_f64", "pop_f64"]);
  assert.throws(() => makeU64Exact(component(other)), /found 0: this is not a component of the pinned/);
  assert.throws(() => makeU64Exact(component(module(), module())), /found 2/);
  assert.throws(() => makeU64Exact(component(module(["push_f64", "pop_f64", "push_u64"]))), /not wit_dylib_pop_u64/);
  assert.throws(() => makeU64Exact(component(module()).subarray(0, 100)), Error);
});
