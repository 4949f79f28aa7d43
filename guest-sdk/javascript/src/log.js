// Lines of the handler's log, which the host keeps with the handler's name and
// the event's id.

import { host } from "#host";

import { line } from "./format.js";
import { wellFormed } from "./values.js";

const write =
  (level) =>
  (...values) =>
    host.log(level, wellFormed(line(values)));

export const log = {
  trace: write("trace"),
  debug: write("debug"),
  info: write("info"),
  warn: write("warn"),
  error: write("error"),
};
