// A fake host for unit tests, with `node --test` or any other runner: no Wasm, no
// NATS, and the same rule that an invocation's effects are kept as a whole or not
// at all. Its documentation is in `testing.d.ts`.

import { Sharing } from "./src/host/sharing.js";
import { during } from "./src/host/testing.js";
import { decode, encode } from "./src/utf8.js";
import { payloadOf } from "./src/values.js";

export { Waits } from "./src/host/sharing.js";

export class Host {
  /** Committed cells and timers, by key. */
  #cells = new Map();
  #timers = new Map();
  #sharing = new Sharing();
  #config;
  #delivered = 0;

  constructor({ config = {} } = {}) {
    this.#config = config;
  }

  deliver(handle, event) {
    this.#delivered += 1;
    const raw = { ...event, sequence: event.sequence ?? this.#delivered };
    raw.id = `${raw.stream}:${raw.sequence}`;

    const timers = new Map(this.#timers.get(raw.key));
    // A timer that fires is no longer set.
    if (raw.timer !== undefined) timers.delete(raw.timer);
    const effects = new Effects();
    const invocation = {
      now: raw.time,
      cells: new Map(this.#cells.get(raw.key)),
      sharing: this.#sharing.for(raw.key),
      config: this.#config,
      effects,
      due: (name) => effects.due(name, timers.get(name)?.at),
    };
    try {
      during(invocation, () => handle(raw));
    } finally {
      // Whatever the handler made of it: on a real host there is nothing to catch.
      if (invocation.sharing.waits !== undefined) throw invocation.sharing.waits;
    }

    this.#sharing = invocation.sharing;
    this.#cells.set(raw.key, invocation.cells);
    for (const timer of effects.timers) {
      if (timer.at === undefined) timers.delete(timer.name);
      else timers.set(timer.name, timer);
    }
    this.#timers.set(raw.key, timers);
    return effects;
  }

  fire(handle, key, name) {
    const timer = this.#timers.get(key)?.get(name);
    if (timer === undefined) throw new Error(`key ${key} has no timer "${name}"`);
    return this.deliver(handle, event(`timer.${name}`, { key, timer: name, time: timer.at, data: timer.data }));
  }

  setShared(name, value) {
    this.#sharing.cells.set(name, Uint8Array.from(payloadOf(value, `shared cell "${name}"`)));
  }

  shared(name) {
    return this.#sharing.cells.get(name);
  }

  sharedJson(name) {
    return json(this.shared(name));
  }

  lockHolder(name) {
    return this.#sharing.holder(name);
  }

  breakLock(name) {
    this.#sharing.free(name);
  }

  cell(key, name) {
    return this.#cells.get(key)?.get(name);
  }

  cellJson(key, name) {
    return json(this.cell(key, name));
  }

  cellNames(key) {
    return [...(this.#cells.get(key)?.keys() ?? [])].sort();
  }
}

const json = (bytes) => bytes && JSON.parse(decode(bytes));

export class Effects {
  emitted = [];
  timers = [];
  log = [];

  emit(subject, headers, data) {
    this.emitted.push(new Payload({ subject, headers }, data));
  }

  setTimer(name, at, data) {
    this.timers.push(new Payload({ name, at }, data));
  }

  /** When a timer is due after what was done so far. */
  due(name, committed) {
    const last = this.timers.findLast((timer) => timer.name === name);
    return last === undefined ? committed : last.at;
  }
}

class Payload {
  constructor(fields, data) {
    Object.assign(this, fields, { data });
  }

  text() {
    return decode(this.data);
  }

  json() {
    return JSON.parse(this.text());
  }
}

export function event(subject, options = {}) {
  const { key = subject, stream = "TEST", sequence, time = 0n, timer, headers = {} } = options;
  return {
    stream,
    sequence,
    subject,
    key,
    time: time instanceof Date ? BigInt(time.getTime()) * 1_000_000n : BigInt(time),
    timer,
    headers: Object.entries(headers).map(([name, value]) => ({ name, value })),
    data: dataOf(options),
  };
}

function dataOf({ data, json }) {
  if (json !== undefined) return encode(JSON.stringify(json));
  if (data === undefined) return new Uint8Array(0);
  return typeof data === "string" ? encode(data) : payloadOf(data, "the event's data");
}
