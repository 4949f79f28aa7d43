// Globals that QuickJS lacks and programs expect, and those it has that would
// not be the same in two executions of an event.
//
// QuickJS seeds Math.random once, and its state is kept in the component when it
// is built. Here it is seeded by the host, anew for each event, when the event
// first asks. `Date` needs nothing: its clock is the host's, which stands.

import log from "weir:handler/log@0.1.2";
import random from "wasi:random/random@0.2.0";

import { line } from "../format.js";
import { decode, decodeLossy, encode } from "../utf8.js";
import { wellFormed } from "../values.js";
import { requireEvent } from "./phase.js";
import { bits } from "./u64.js";

/** Seed while the component is built, so that two builds are the same. */
const BUILD_SEED = [0x9e3779b9, 0x243f6a88, 0xb7e15162, 1];
/** What the web's standard allows `getRandomValues` at once. */
const RANDOM_BYTES_MAX = 65_536;

/** State of sfc32, a small generator of 32-bit numbers; undefined: not seeded yet. */
let generator = BUILD_SEED;

/** Called before each event. */
export function beginEvent() {
  generator = undefined;
}

Math.random = () => {
  if (generator === undefined) {
    const seed = randomBytes(16);
    generator = Array.from(new Uint32Array(seed.buffer, seed.byteOffset, 4));
  }
  // 53 random bits, as a double in [0, 1) can have.
  return (next() * 0x20_0000 + (next() >>> 11)) / 0x20_0000_0000_0000;
};

function next() {
  const [a, b, c, count] = generator;
  const sum = (a + b + count) | 0;
  generator = [b ^ (b >>> 9), (c + (c << 3)) | 0, (((c << 21) | (c >>> 11)) + sum) | 0, (count + 1) | 0];
  return sum >>> 0;
}

function randomBytes(length) {
  requireEvent("crypto");
  const bytes = random.getRandomBytes(bits(BigInt(length)));
  return bytes instanceof Uint8Array ? bytes : Uint8Array.from(bytes);
}

const write =
  (level) =>
  (...values) => {
    requireEvent("console");
    log.write(level, wellFormed(line(values)));
  };

globalThis.console = {
  trace: write("trace"),
  debug: write("debug"),
  log: write("info"),
  info: write("info"),
  warn: write("warn"),
  error: write("error"),
  assert: (holds, ...values) => holds || write("error")("assertion failed:", ...values),
};

globalThis.crypto = {
  getRandomValues(array) {
    if (array.byteLength > RANDOM_BYTES_MAX) {
      throw new RangeError(`getRandomValues gives at most ${RANDOM_BYTES_MAX} bytes at once`);
    }
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(randomBytes(array.byteLength));
    return array;
  },

  randomUUID() {
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
    bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant of RFC 9562
    const hex = bytes.toHex();
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  },
};

// QuickJS counts from when the component was built.
globalThis.performance = { timeOrigin: 0, now: () => Date.now() };

globalThis.TextEncoder = class TextEncoder {
  encoding = "utf-8";

  encode(value = "") {
    return encode(String(value));
  }
};

globalThis.TextDecoder = class TextDecoder {
  encoding = "utf-8";

  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`TextDecoder knows utf-8 here, not ${label}`);
    this.fatal = fatal;
    this.ignoreBOM = ignoreBOM;
  }

  decode(bytes = new Uint8Array(0)) {
    const view = ArrayBuffer.isView(bytes)
      ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      : new Uint8Array(bytes);
    const text = this.#read(view);
    return !this.ignoreBOM && text.startsWith("\ufeff") ? text.slice(1) : text;
  }

  #read(bytes) {
    try {
      return decode(bytes);
    } catch {
      if (this.fatal) throw new TypeError("the bytes are not UTF-8");
      return decodeLossy(bytes);
    }
  }
};
