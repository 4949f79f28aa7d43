// Durable timers of the event's key.

import { host } from "#host";

import { payloadOf, text } from "./values.js";

const NS_PER_MS = 1_000_000n;
/** 2262-02-24: 64 bits whose pattern, as a double's, is still a number. */
export const TIME_MAX = 0x7fef_ffff_ffff_ffffn;

export const timers = {
  set(name, at, payload) {
    const data = payload === undefined ? new Uint8Array(0) : payloadOf(payload, `the payload of timer "${name}"`);
    host.timerSet(text(name, "a timer's name"), nanoseconds(at, name), data);
  },

  after(name, ms, payload) {
    if (typeof ms !== "number" || !(ms >= 0)) {
      throw new RangeError(`timer "${name}": the delay is in milliseconds, zero or more, not ${ms}`);
    }
    // Milliseconds may have decimals, and a double has them exactly enough.
    timers.set(name, host.now() + BigInt(Math.round(ms * 1e6)), payload);
  },

  cancel(name) {
    host.timerCancel(text(name, "a timer's name"));
  },

  due(name) {
    return host.timerDue(text(name, "a timer's name"));
  },
};

function nanoseconds(at, name) {
  const time = at instanceof Date ? dateNanoseconds(at, name) : at;
  if (typeof time !== "bigint") {
    throw new TypeError(`timer "${name}": the time is a Date, or a bigint of Unix nanoseconds such as event.time`);
  }
  if (time < 0n || time > TIME_MAX) throw new RangeError(`timer "${name}": ${time} ns is not a time between 1970 and 2262`);
  return time;
}

function dateNanoseconds(date, name) {
  const ms = date.getTime();
  if (Number.isNaN(ms)) throw new RangeError(`timer "${name}": an invalid Date`);
  return BigInt(ms) * NS_PER_MS;
}
