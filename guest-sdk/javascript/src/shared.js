// Cells and locks that all keys, handlers and hosts of the ledger share.

import { host } from "#host";

import { Cell } from "./state.js";
import { bytesOf, text } from "./values.js";

const NAME = "a shared cell's name";

/** Where shared cells are, and what one is called in an error. */
const cells = {
  what: "shared cell",
  get: (name) => host.sharedGet(name),
  set: (name, bytes) => host.sharedSet(name, bytes),
  delete: (name) => host.sharedDelete(name),
};

export const shared = {
  cell(name, options = {}) {
    return new Cell(cells, text(name, NAME), options.default);
  },

  get(name) {
    return host.sharedGet(text(name, NAME)) ?? undefined;
  },

  set(name, value) {
    host.sharedSet(text(name, NAME), bytesOf(value, `shared cell "${name}"`));
  },

  delete(name) {
    host.sharedDelete(text(name, NAME));
  },

  tryLock(name, ms) {
    const token = host.tryLock(text(name, "a lock's name"), milliseconds(ms, name));
    return token === undefined ? undefined : Number(token);
  },

  lock(name, ms) {
    return Number(host.lock(text(name, "a lock's name"), milliseconds(ms, name)));
  },

  unlock(name) {
    host.unlock(text(name, "a lock's name"));
  },
};

function milliseconds(ms, name) {
  if (typeof ms !== "number" || !(ms >= 0)) {
    throw new RangeError(`lock "${name}": it is held for milliseconds, zero or more, not ${ms}`);
  }
  return BigInt(Math.trunc(Math.min(ms, Number.MAX_SAFE_INTEGER)));
}
