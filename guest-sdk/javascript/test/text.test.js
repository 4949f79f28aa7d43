import assert from "node:assert/strict";
import { test } from "node:test";

import { subjectToken } from "weir-guest";

import { reasonOf, Retry } from "../src/failure.js";
import { bigint, bits } from "../src/host/u64.js";
import { sourceLines as translate } from "../src/host/source_lines.js";
import { decode, decodeLossy, encode } from "../src/utf8.js";
import { sourceLines } from "../build/source_lines.mjs";

test("any text is one token of a subject", () => {
  assert.equal(subjectToken("N14228"), "N14228");
  assert.equal(subjectToken("a_b-C"), "a_b-C");
  assert.equal(subjectToken("a.b *>"), "a%2Eb%20%2A%3E");
  assert.equal(subjectToken("ü€😀"), "%C3%BC%E2%82%AC%F0%9F%98%80");
  assert.equal(subjectToken(""), "");
  assert.throws(() => subjectToken(5), TypeError);
});

const bytes = (...values) => Uint8Array.from(values);

test("text is UTF-8, and what is not is refused or replaced like TextDecoder does it", () => {
  for (const text of ["", "abc", "ü€😀", "\ufeffx", "\u0000"]) assert.equal(decode(encode(text)), text);
  const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const bad of [
    bytes(0xff),
    bytes(0x61, 0xc3),
    bytes(0xc0, 0x80), // overlong
    bytes(0xe0, 0x80, 0x80),
    bytes(0xed, 0xa0, 0x80), // a surrogate
    bytes(0xf4, 0x90, 0x80, 0x80), // beyond Unicode
    bytes(0xf0, 0x9f, 0x98),
    bytes(0xf0, 0x9f, 0x98, 0x61),
    bytes(0x80, 0x61, 0xe2, 0x82, 0xac, 0xf5),
  ]) {
    assert.throws(() => decode(bad));
    assert.equal(decodeLossy(bad), lossy.decode(bad), String(bad));
  }
  assert.equal(decodeLossy(encode("ü€😀")), "ü€😀");
});

test("integers survive as doubles", () => {
  for (const value of [0n, 1n, 5_012n, 1_700_000_000_123_456_789n, 0x7fef_ffff_ffff_ffffn]) {
    assert.equal(bigint(bits(value)), value);
    assert.ok(!Number.isNaN(bits(value)));
  }
});

test("a reason has its causes, once each", () => {
  const error = new Retry("no rate", { cause: new Error("timeout") });
  assert.equal(reasonOf(error), "no rate: timeout");
  error.cause.cause = error;
  assert.equal(reasonOf(error), "no rate: timeout");
});

test("lines of the bundle become those of the sources", () => {
  // Line 2 is from line 5 of the first source, line 3 from line 2 of the second.
  const table = sourceLines({ sources: ["a.ts", "../b.ts"], mappings: ";AAIA,CAAC;ACHA" }, (source) => source.toUpperCase());
  assert.deepEqual(table, { sources: ["A.TS", "../B.TS"], lines: [0, [0, 5], [1, 2]] });
  const stack = "    at f (/bundle.js:2:10)\n    at map (native)\n    at g (/bundle.js:3)\n    at h (/bundle.js:1:1)";
  assert.equal(translate(stack, table), "    at f (A.TS:5)\n    at map (native)\n    at g (../B.TS:2)\n    at h (/bundle.js:1:1)");
  assert.equal(translate(stack, undefined), stack);
});
