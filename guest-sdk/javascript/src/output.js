// Events that a handler emits.

import { host } from "#host";

import { payloadOf, text } from "./values.js";

export function emit(subject, payload, headers) {
  text(subject, "a subject");
  host.emit(subject, headerList(headers), payloadOf(payload, `the payload for ${subject}`));
}

/** `{Name: "value"}` with strings or lists of them, or a list of `{name, value}`. */
function headerList(headers = {}) {
  if (Array.isArray(headers)) return headers.map(({ name, value }) => header(name, value));
  return Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map((value) => header(name, value)),
  );
}

function header(name, value) {
  return { name: text(name, "a header's name"), value: text(value, `header ${name}`) };
}
