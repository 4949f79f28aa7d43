// The host's functions outside of a component: those of the invocation that
// `Host.deliver` of `weir-guest/testing` has under way.

/** `{ now, cells, sharing, config, effects }`, see `testing.js`. */
let invocation;

/** Calls `act` while `next` is the invocation under way. */
export function during(next, act) {
  if (invocation !== undefined) throw new Error("a handler cannot deliver an event to another");
  invocation = next;
  try {
    return act();
  } finally {
    invocation = undefined;
  }
}

function current() {
  if (invocation === undefined) {
    throw new Error("there is no event: outside of Weir, call the handler with `new Host().deliver(…)` of weir-guest/testing");
  }
  return invocation;
}

/** Bytes that neither side can change afterwards. */
const copy = (bytes) => Uint8Array.from(bytes);

export const host = {
  bigint: (value) => BigInt(value),
  begin(event) {
    current().now = event.time;
  },
  now: () => current().now,
  failure: (error) => error,

  cellGet(name) {
    const value = current().cells.get(name);
    return value && copy(value);
  },
  cellGetMany: (names) => names.map((name) => host.cellGet(name)),
  cellSet: (name, value) => void current().cells.set(name, copy(value)),
  cellDelete: (name) => void current().cells.delete(name),
  cellNames: (prefix) => [...current().cells.keys()].filter((name) => name.startsWith(prefix)).sort(byBytes),

  emit: (subject, headers, data) => void current().effects.emit(subject, headers, copy(data)),

  timerSet: (name, at, data) => void current().effects.setTimer(name, at, copy(data)),
  timerCancel: (name) => void current().effects.setTimer(name, undefined, new Uint8Array(0)),
  timerDue: (name) => current().due(name),

  sharedGet(name) {
    const value = current().sharing.cells.get(name);
    return value && copy(value);
  },
  sharedSet: (name, value) => void current().sharing.cells.set(name, copy(value)),
  sharedDelete: (name) => void current().sharing.cells.delete(name),
  tryLock: (name) => current().sharing.tryLock(name),
  lock: (name) => current().sharing.lock(name),
  unlock: (name) => current().sharing.unlock(name),

  config: (name) => current().config[name],
  log: (level, message) => void current().effects.log.push({ level, message }),
};

function byBytes(a, b) {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
