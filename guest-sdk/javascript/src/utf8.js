// Text as bytes and back. QuickJS has no TextEncoder and TextDecoder, and a loop
// over characters costs it 0.4 us each, so ASCII goes through base64, which is
// native code in both directions, and other text through the escapes of URIs,
// which are as well. Node has neither in all versions, but has the classes.

const native = typeof Uint8Array.fromBase64 === "function" && typeof btoa === "function";
const HIGH_BITS = 0x80808080;

/** Lone surrogates, which have no bytes, become U+FFFD. */
export const encode = native ? encodeNative : (value) => new TextEncoder().encode(value);

/** Throws where the bytes are not UTF-8. A byte order mark is a character like others. */
export const decode = native
  ? decodeNative
  : (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

function encodeNative(value) {
  const bytes = latin1(value);
  if (bytes !== undefined && isAscii(bytes)) return bytes;
  return latin1(unescape(encodeURIComponent(value.toWellFormed())));
}

function decodeNative(bytes) {
  const text = atob(bytes.toBase64());
  return isAscii(bytes) ? text : decodeURIComponent(escape(text));
}

/** A byte per character; undefined where one does not fit. */
function latin1(value) {
  try {
    return Uint8Array.fromBase64(btoa(value));
  } catch {
    return undefined;
  }
}

function isAscii(bytes) {
  const words = bytes.byteOffset % 4 === 0 ? bytes.length >> 2 : 0;
  for (const word of new Uint32Array(bytes.buffer, words === 0 ? 0 : bytes.byteOffset, words)) {
    if (word & HIGH_BITS) return false;
  }
  for (let at = words * 4; at < bytes.length; at += 1) {
    if (bytes[at] & 0x80) return false;
  }
  return true;
}

const REPLACEMENT = "\ufffd";
/** Smallest code point that a sequence of 2, 3, 4 bytes may stand for. */
const SMALLEST = [0x80, 0x800, 0x10000];

/** As `decode`, with U+FFFD for what is not UTF-8. Slow: for bytes that `decode` refused. */
export function decodeLossy(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const [character, length] = sequenceAt(bytes, at);
    text += character;
    at += length;
  }
  return text;
}

function sequenceAt(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return [String.fromCharCode(first), 1];
  const more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  if (first < 0xc2 || first > 0xf4) return [REPLACEMENT, 1];
  let point = first & (0x3f >> more);
  for (let next = 1; next <= more; next += 1) {
    const byte = bytes[at + next];
    if (byte === undefined || (byte & 0xc0) !== 0x80) return [REPLACEMENT, next];
    point = (point << 6) | (byte & 0x3f);
    if (next === 1 && !canBegin(point, more)) return [REPLACEMENT, 1];
  }
  return [String.fromCodePoint(point), more + 1];
}

/** Whether the first two bytes are not overlong, a surrogate or beyond Unicode. */
function canBegin(point, more) {
  const rest = 6 * (more - 1);
  const low = point << rest;
  const high = low | ((1 << rest) - 1);
  return high >= SMALLEST[more - 1] && low <= 0x10ffff && !(low >= 0xd800 && high <= 0xdfff);
}
