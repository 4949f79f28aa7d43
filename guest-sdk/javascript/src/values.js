// Checks of what the user passes on to the host. The bindings check as well, but
// stop the component with a message of theirs, without the line of the handler.

import { encode } from "./utf8.js";

/** The string itself. Lone surrogates, which have no bytes, become U+FFFD. */
export function text(value, what) {
  if (typeof value !== "string") throw new TypeError(`${what} is a string, not ${kindOf(value)}`);
  return wellFormed(value);
}

/** A value as compact JSON. */
export function textOf(value, what) {
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`${what}: ${kindOf(value)} has no form in JSON`);
  return json;
}

/** Bytes as they are, a string as UTF-8. */
export function bytesOf(value, what) {
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (typeof value === "string") return encode(value);
  throw new TypeError(`${what} takes a Uint8Array or a string, not ${kindOf(value)}; cell() and emit() write JSON`);
}

/** As `bytesOf`, and everything else as JSON. */
export function payloadOf(value, what) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return bytesOf(value, what);
  return encode(textOf(value, what));
}

export function wellFormed(value) {
  return value.toWellFormed ? value.toWellFormed() : value; // Node 18 has it not
}

function kindOf(value) {
  if (value === null) return "null";
  if (typeof value === "object") return value.constructor?.name ?? "an object";
  return typeof value === "undefined" ? "undefined" : `a ${typeof value}`;
}
