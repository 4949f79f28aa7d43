// Text as one token of a subject.

import { encode } from "./utf8.js";
import { text } from "./values.js";

const ALLOWED = /^[A-Za-z0-9_-]*$/;

export function subjectToken(value) {
  text(value, "what becomes a subject's token");
  if (ALLOWED.test(value)) return value;
  let token = "";
  for (const byte of encode(value)) {
    const character = String.fromCharCode(byte);
    token += ALLOWED.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return token;
}
