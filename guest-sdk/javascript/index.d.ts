/**
 * Write Weir handlers in JavaScript and TypeScript.
 *
 * A handler is one function, exported as `handle`. It is called with one event
 * at a time, in the order of that event's key; whatever it does is committed as
 * a whole when it returns, and not at all when it throws.
 *
 * ```js
 * import { cell, emit, handler, subjectToken } from "weir-guest";
 *
 * export const handle = handler((event) => {
 *   const n = cell("n", { default: 0 }).update((n) => n + 1);
 *   emit(`counts.${subjectToken(event.key)}`, { key: event.key, n });
 * });
 * ```
 *
 * It sees its event, its cells and its configuration, and nothing else: no files,
 * no network, no other clock than the event's time. The same input gives the same
 * effects. Keep it so: what must survive belongs into a cell, never into a
 * variable of the module.
 */

/** A value that JSON can carry. */
export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

/** A header of a message. */
export interface Header {
  name: string;
  value: string;
}

/** What the bindings call. Export it as `handle`. */
export type Handle = (raw: unknown) => void;

/**
 * Makes a function the handler of this component.
 *
 * The function is an ordinary one: there is nothing that it could wait for, so one
 * that returns a promise fails. What it throws decides what becomes of the event:
 * {@link Reject} makes it a dead letter at once, {@link Retry} tries again with the
 * host's backoff, and any other error is a fault, which is logged with its stack
 * and tried again as well. When the attempts are used up, the event is a dead
 * letter that holds the message and the stack.
 */
export function handler(handle: (event: Event) => void | undefined): Handle;

/** One event: a JetStream message of a source, or a timer that fired. */
export class Event {
  private constructor();
  /** Stable and unique, `<stream>:<sequence>`: the same in every attempt. */
  readonly id: string;
  /** The stream that the event is stored in. */
  readonly stream: string;
  /** Its sequence in that stream. A number: a stream will not see 2^53 messages. */
  readonly sequence: number;
  /** The subject it was published on. */
  readonly subject: string;
  /** The key it belongs to, as `[key]` of `handler.toml` says. State, timers and order are per key. */
  readonly key: string;
  /** Unix time in nanoseconds when the stream stored it, exactly. */
  readonly time: bigint;
  /** The timer's name, if this is a timer that fired. */
  readonly timer: string | undefined;
  /** All headers, in the order of the message. */
  readonly headers: readonly Header[];
  /** The payload. */
  readonly data: Uint8Array;
  /** {@link time}, cut to milliseconds. */
  get date(): Date;
  /** The first header of that name, which is compared without regard to case. */
  header(name: string): string | undefined;
  /** The payload as text. Rejects the event if it is not UTF-8. */
  text(): string;
  /** The payload read as JSON. Rejects the event if it is not; its shape is not checked. */
  json<T = any>(): T;
}

/** Thrown: try again later. The host waits longer from attempt to attempt; after the last the event is a dead letter. */
export class Retry extends Error {
  constructor(reason: string, options?: { cause?: unknown });
}

/** Thrown: never going to work. The event is a dead letter at once. */
export class Reject extends Error {
  constructor(reason: string, options?: { cause?: unknown });
}

/** Bytes, or text that becomes UTF-8. */
export type Bytes = Uint8Array | ArrayBuffer | string;

/** Cells of the event's key, as bytes. Reads see the writes of this invocation. */
export const cells: {
  /** The bytes of a cell, or undefined where there is none. */
  get(name: string): Uint8Array | undefined;
  /** Several cells in one call of the host, in the order of the names. */
  getMany(names: readonly string[]): (Uint8Array | undefined)[];
  /** Writes a cell. */
  set(name: string, value: Bytes): void;
  /** Removes a cell, if there is one. */
  delete(name: string): void;
  /** Names of the key's cells that begin with `prefix`, in the order of their bytes. */
  keys(prefix?: string): string[];
};

/** A cell that holds a value as JSON: a number is its decimal text. */
export interface Cell<T, Absent = undefined> {
  readonly name: string;
  /** The value, or the default. What it returns is yours: nothing is written before `set`. */
  get(): T | Absent;
  /** Writes the value, and returns it. */
  set(value: T): T;
  /** Writes what the function makes of the value, and returns it. */
  update(change: (value: T | Absent) => T): T;
  /** Removes the cell, so that it is the default again. */
  delete(): void;
}

/**
 * A typed view of a cell. The bytes outlive the code that wrote them: let a new
 * version read what the old one wrote.
 *
 * ```js
 * const open = cell("open", { default: [] });
 * open.update((orders) => [...orders, event.id]);
 * ```
 */
export function cell<T>(name: string, options: { default: T }): Cell<Widened<T>, never>;
export function cell<T = Json>(name: string, options?: {}): Cell<T>;

/** `number` of `0`: a default is an example of the type, and not its only value. */
export type Widened<T> = T extends number
  ? number
  : T extends string
    ? string
    : T extends boolean
      ? boolean
      : T extends readonly never[]
        ? Json[]
        : T;

/** A payload: bytes as they are, everything else as compact JSON (a string, too). */
export type Payload = Uint8Array | ArrayBuffer | Json | object;

/**
 * Emits an event, which appears in the ledger when this one is committed, in the
 * order of the calls, and never if the handler fails. A subject outside of
 * `[emit]` of `handler.toml` fails the event. Header names that begin with `Nats-`
 * belong to the server.
 */
export function emit(
  subject: string,
  payload: Payload,
  headers?: Readonly<Record<string, string | readonly string[]>> | readonly Header[],
): void;

/**
 * Durable timers of the event's key. A timer that fires is an event of that key,
 * in order with all others, whose `timer` is the timer's name and whose data is
 * the payload. Setting one of the same name replaces it.
 */
export const timers: {
  /** Sets a timer to a `Date`, or to Unix nanoseconds: `event.time + 60_000_000_000n`. */
  set(name: string, at: Date | bigint, payload?: Payload): void;
  /** Sets a timer to this many milliseconds after the event was stored. */
  after(name: string, ms: number, payload?: Payload): void;
  /** Removes a timer, if there is one. */
  cancel(name: string): void;
  /** When the timer is due in Unix nanoseconds, if it is set. */
  due(name: string): bigint | undefined;
};

/**
 * Cells and locks that all keys, handlers and hosts of the ledger share.
 *
 * What an event reads here still holds when its effects are committed; if somebody
 * else was faster, nothing of it counts, and it is handled again. So a read, a
 * decision and a write are one step, whatever others do meanwhile.
 *
 * ```js
 * const taken = shared.cell("seats", { default: 0 });
 * if (taken.get() < 10) emit("bookings.made", taken.update((n) => n + 1));
 * ```
 *
 * A lock is held by the event's key, from one event to a later one, until it is given
 * back, or its time is over and somebody else takes it. Its token rises from holder
 * to holder: hand it to whatever is to be protected, so that it can refuse older ones.
 * What an event does after it took a lock is committed only if the lock is still held.
 */
export const shared: {
  /** A typed view of a shared cell, with the bytes that `cell` of the event's key has. */
  cell<T>(name: string, options: { default: T }): Cell<Widened<T>, never>;
  cell<T = Json>(name: string, options?: {}): Cell<T>;
  /** The bytes of a shared cell, or undefined where there is none. */
  get(name: string): Uint8Array | undefined;
  /** Writes the bytes of a shared cell. */
  set(name: string, value: Bytes): void;
  /** Removes a shared cell, if there is one. */
  delete(name: string): void;
  /**
   * Takes the lock for the event's key, or goes on holding it, for this many milliseconds
   * from now: its fencing token, or undefined where another key or handler holds it.
   * Below 100 ms it is 100 ms, above seven days it is seven days.
   */
  tryLock(name: string, ms: number): number | undefined;
  /**
   * The same, but where another holds the lock, this invocation ends here with nothing
   * done, and the event is handled again once the lock is free. The key's later events
   * wait behind it; other keys do not. In a unit test, `Host.deliver` then throws `Waits`.
   */
  lock(name: string, ms: number): number;
  /** Gives the lock back, if the event's key holds it. */
  unlock(name: string): void;
};

/** The `[config]` table of `handler.toml`. */
export const config: {
  /** A setting's text. */
  get(name: string): string | undefined;
  /** A setting that is a number. A fault where it is missing, without a default, or not a number. */
  number(name: string, otherwise?: number): number;
};

/**
 * Lines of the handler's log. `console.log` and its like write there too. Strings
 * appear as they are, errors with their stack, everything else as JSON. What one
 * event may log is bounded; see `[limits]`.
 */
export const log: {
  trace(...values: unknown[]): void;
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
};

/**
 * Any text as one token of a subject: bytes outside of `A-Z a-z 0-9 _ -` become
 * `%XX`. A key that came from a payload may hold dots, spaces or wildcards.
 *
 * ```js
 * subjectToken("a.b *"); // "a%2Eb%20%2A"
 * ```
 */
export function subjectToken(text: string): string;

/**
 * Globals that handlers have beside those of JavaScript itself. They are declared
 * here and not by the library of browsers, most of which is not there.
 */
declare global {
  var console: {
    trace(...values: unknown[]): void;
    debug(...values: unknown[]): void;
    log(...values: unknown[]): void;
    info(...values: unknown[]): void;
    warn(...values: unknown[]): void;
    error(...values: unknown[]): void;
    assert(holds: unknown, ...values: unknown[]): void;
  };
  /** Seeded by the host per event, like `Math.random`. */
  var crypto: {
    getRandomValues<T extends ArrayBufferView>(array: T): T;
    randomUUID(): string;
  };
  class TextEncoder {
    encode(text?: string): Uint8Array;
  }
  class TextDecoder {
    constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
    decode(bytes?: ArrayBuffer | ArrayBufferView): string;
  }
  function atob(text: string): string;
  function btoa(text: string): string;
}
