// The host's functions inside a component: the imports of the WIT world.

import config from "weir:handler/config@0.1.2";
import log from "weir:handler/log@0.1.2";
import output from "weir:handler/output@0.1.2";
import shared from "weir:handler/shared@0.1.2";
import state from "weir:handler/state@0.1.2";
import timers from "weir:handler/timers@0.1.2";

import { Reject, Retry, reasonOf } from "../failure.js";
import { withStack } from "../format.js";
import { wellFormed } from "../values.js";
import { beginEvent } from "./globals.js";
import { beginEvents, requireEvent } from "./phase.js";
import { sourceLines } from "./source_lines.js";
import { bigint, bits } from "./u64.js";

let now = 0n;

export const host = {
  bigint,

  begin(event) {
    now = event.time;
    beginEvents();
    beginEvent();
  },

  now: () => now,

  /**
   * What `handle` throws. The bindings turn `{tag, val}` into a failure, and an
   * error into a trap. The host takes the last line that was logged as an error
   * for the reason of a trap, so that is where the stack goes; what the bindings
   * write to stderr in addition is kept short.
   */
  failure(error) {
    if (error instanceof Retry) return { tag: "retry", val: wellFormed(reasonOf(error)) };
    if (error instanceof Reject) return { tag: "reject", val: wellFormed(reasonOf(error)) };
    const text = error instanceof Error ? withStack(error, (stack) => sourceLines(stack, globalThis.__weirSourceLines)) : `thrown: ${String(error)}`;
    log.write("error", wellFormed(text));
    const short = new Error("the error logged above");
    short.stack = "";
    return short;
  },

  cellGet: (name) => cells().get(name),
  cellGetMany: (names) => cells().getMany(names),
  cellSet: (name, value) => cells().set(name, value),
  cellDelete: (name) => cells().delete(name),
  cellNames: (prefix) => cells().cells(prefix),

  emit(subject, headers, data) {
    requireEvent("emit");
    output.emit(subject, headers, data);
  },

  timerSet: (name, at, data) => ofTimers().set(name, bits(at), data),
  timerCancel: (name) => ofTimers().cancel(name),
  timerDue: (name) => optional(ofTimers().due(name)),

  sharedGet: (name) => sharing().get(name),
  sharedSet: (name, value) => sharing().set(name, value),
  sharedDelete: (name) => sharing().delete(name),
  tryLock: (name, ms) => optional(sharing().tryLock(name, bits(ms))),
  lock: (name, ms) => bigint(sharing().lock(name, bits(ms))),
  unlock: (name) => sharing().unlock(name),

  config(name) {
    requireEvent("config");
    return config.get(name);
  },

  log(level, message) {
    requireEvent("the log");
    log.write(level, message);
  },
};

function cells() {
  requireEvent("a cell");
  return state;
}

function sharing() {
  requireEvent("a shared cell or a lock");
  return shared;
}

function optional(bits) {
  return bits === null || bits === undefined ? undefined : bigint(bits);
}

function ofTimers() {
  requireEvent("a timer");
  return timers;
}
