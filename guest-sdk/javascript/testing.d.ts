/**
 * A fake host for unit tests of handlers, with `node --test` or any other runner:
 * no Wasm, no NATS, and the same rule that an invocation's effects are kept as a
 * whole or not at all.
 *
 * ```js
 * import assert from "node:assert/strict";
 * import { test } from "node:test";
 * import { Host, event } from "weir-guest/testing";
 * import { handle } from "./handler.js";
 *
 * test("counts per key", () => {
 *   const host = new Host();
 *   host.deliver(handle, event("orders.new", { key: "a", json: { amount: 1 } }));
 *   const effects = host.deliver(handle, event("orders.new", { key: "a", json: { amount: 2 } }));
 *   assert.deepEqual(effects.emitted[0].json(), { key: "a", n: 2 });
 *   assert.equal(host.cellJson("a", "n"), 2);
 * });
 * ```
 *
 * It does not enforce the limits and the `[emit]` subjects of `handler.toml`, and
 * `Math.random` and `console` are those of Node: `weir test` runs the component
 * itself.
 */

import type { Bytes, Handle, Header, Json, Payload } from "weir-guest";
import { Retry } from "weir-guest";

/** The state of one handler, and its configuration. */
export class Host {
  constructor(options?: { config?: Record<string, string> });
  /**
   * Calls the handler, and keeps its cells and timers if it returns. Throws what
   * the handler threw: a `Retry`, a `Reject` or any other error; or {@link Waits}.
   */
  deliver(handle: Handle, event: TestEvent): Effects;
  /** Delivers a timer that is set, at the time when it is due. */
  fire(handle: Handle, key: string, name: string): Effects;
  /** A cell's bytes as the last successful invocation of that key left them. */
  cell(key: string, name: string): Uint8Array | undefined;
  /** The same, read as JSON. */
  cellJson(key: string, name: string): any;
  /** Names of all cells of the key. */
  cellNames(key: string): string[];
  /** Writes a shared cell, as another handler would have: bytes as they are, everything else as JSON. */
  setShared(name: string, value: Payload): void;
  /** A shared cell's bytes as the last successful invocation left them. */
  shared(name: string): Uint8Array | undefined;
  /** The same, read as JSON. */
  sharedJson(name: string): any;
  /** The key that holds a lock. Locks do not expire here; `breakLock` ends one. */
  lockHolder(name: string): string | undefined;
  /** Takes a lock away from whoever holds it, as its expiry does. */
  breakLock(name: string): void;
}

/**
 * Thrown by `deliver` where the handler called `shared.lock` for a lock that another
 * key holds. On a real host the event is handled again once the lock is free.
 */
export class Waits extends Retry {
  private constructor();
  readonly lock: string;
}

/** What one invocation did, its cells apart. */
export interface Effects {
  emitted: Emitted[];
  /** Timers set and, with `at` undefined, cancelled, in the order of the calls. */
  timers: Timer[];
  log: { level: "trace" | "debug" | "info" | "warn" | "error"; message: string }[];
}

export interface Emitted {
  subject: string;
  headers: Header[];
  data: Uint8Array;
  text(): string;
  json(): any;
}

export interface Timer {
  name: string;
  /** Unix nanoseconds. */
  at: bigint | undefined;
  data: Uint8Array;
  text(): string;
  json(): any;
}

/** An event to deliver; made by {@link event}. */
export interface TestEvent {
  readonly subject: string;
  readonly key: string;
}

/** An event of the stream `TEST`, numbered in the order of delivery, unless the options say otherwise. */
export function event(
  subject: string,
  options?: {
    /** The subject, where it is not given. */
    key?: string;
    stream?: string;
    sequence?: number;
    /** Unix nanoseconds, or a Date. */
    time?: bigint | Date;
    /** Makes it a timer of that name that fired. */
    timer?: string;
    headers?: Record<string, string>;
    /** The payload as it is. */
    data?: Bytes;
    /** The payload as JSON. */
    json?: Json | object;
  },
): TestEvent;
