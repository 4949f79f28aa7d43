// What keys share, outside of a component: see `testing.js`.

import { Retry } from "../failure.js";

export class Waits extends Retry {
  constructor(lock) {
    super(`waits for lock "${lock}"`);
    this.lock = lock;
  }
}

/** Shared cells and locks as the events so far left them. */
export class Sharing {
  cells = new Map();
  /** By name, `{ holder, token }`; without a holder where it is free. */
  locks = new Map();

  /** What an event of `key` sees, and may change. */
  for(key) {
    const seen = new Sharer(key);
    seen.cells = new Map(this.cells);
    seen.locks = new Map(this.locks);
    return seen;
  }

  holder(name) {
    return this.locks.get(name)?.holder;
  }

  free(name) {
    const lock = this.locks.get(name);
    if (lock !== undefined) this.locks.set(name, { token: lock.token });
  }
}

class Sharer extends Sharing {
  #key;
  /** What ended the invocation. */
  waits;

  constructor(key) {
    super();
    this.#key = key;
  }

  tryLock(name) {
    const { holder, token = 0n } = this.locks.get(name) ?? {};
    if (holder === this.#key) return token;
    if (holder !== undefined) return undefined;
    this.locks.set(name, { holder: this.#key, token: token + 1n });
    return token + 1n;
  }

  lock(name) {
    const token = this.tryLock(name);
    if (token === undefined) throw (this.waits = new Waits(name));
    return token;
  }

  unlock(name) {
    if (this.holder(name) === this.#key) this.free(name);
  }
}
