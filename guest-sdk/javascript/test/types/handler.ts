// Not run: tsc checks that what should compile does, and that what should not
// does not. `tsc --project test/types` fails where a `@ts-expect-error` is none.

import { cell, cells, config, emit, Event, handler, log, Reject, Retry, shared, subjectToken, timers } from "weir-guest";
import { event, Host, Waits } from "weir-guest/testing";

interface Order {
  id: string;
  total: number;
}

export const handle = handler((e) => {
  const time: bigint = e.time;
  const sequence: number = e.sequence;
  const maybe: string | undefined = e.timer ?? e.header("Name");
  const order: Order = e.json<Order>();
  const data: Uint8Array = e.data;

  const n: number = cell("n", { default: 0 }).update((value) => value + 1);
  const flag: boolean = cell("flag", { default: false }).get();
  const orders = cell<Order[]>("orders", { default: [] });
  orders.update((all) => [...all, order]);
  const last = cell<Order>("last");
  const total: number | undefined = last.get()?.total;

  emit(`out.${subjectToken(e.key)}`, order);
  emit("out", data, { Header: "value" });
  timers.set("t", e.time + 60_000_000_000n);
  timers.set("t", new Date(), order);
  timers.after("t", 1_000);
  cells.set("c", data);
  cells.set("c", "text");
  const seats: number = shared.cell("seats", { default: 0 }).update((taken) => taken + 1);
  const token: number = shared.lock("van", 60_000);
  const tried: number | undefined = shared.tryLock("van", seats + token);
  shared.set("c", shared.get("d") ?? "none");
  shared.delete("c");
  shared.unlock("van");
  log.info(time, sequence, maybe, n, flag, total, tried, config.get("a"), config.number("b", 1));
  console.log(crypto.randomUUID(), new TextDecoder().decode(data));

  // @ts-expect-error a sequence is a number
  const wrong: bigint = e.sequence;
  // @ts-expect-error an event is not written to
  e.key = "other";
  // @ts-expect-error a cell of numbers takes no string
  cell("n", { default: 0 }).set("one");
  // @ts-expect-error without a default there may be nothing
  last.get().total;
  // @ts-expect-error bytes, not an object
  cells.set("c", { a: 1 });
  // @ts-expect-error a number would be milliseconds to some
  timers.set("t", 5);
  // @ts-expect-error another may have the lock
  shared.tryLock("van", 1).toFixed();
  // @ts-expect-error bytes, not an object
  shared.set("c", { a: 1 });
  // @ts-expect-error without a default there may be nothing
  shared.cell<Order>("last").get().total;
  // @ts-expect-error headers are text
  emit("out", 1, { Header: 5 });
  // @ts-expect-error there is nothing in JSON for it
  emit("out", undefined);
  // @ts-expect-error no timers of JavaScript
  setTimeout(() => {}, 5);

  if (wrong) throw new Retry("later", { cause: wrong });
  throw new Reject("never");
});

// @ts-expect-error nobody would wait for a promise
handler(async () => {});
// @ts-expect-error events are made by the host
new Event();

const host = new Host({ config: { a: "b" } });
const effects = host.deliver(handle, event("a", { key: "k", json: { id: "1" }, time: 5n }));
const subject: string | undefined = effects.emitted[0]?.subject;
host.setShared("seats", 9);
const waits = (error: unknown): string | undefined => (error instanceof Waits ? error.lock : undefined);
export const seen = [waits, host.sharedJson("seats"), host.shared("seats"), host.lockHolder("van"), host.breakLock("van"),
  subject, host.cellJson("k", "n"), host.fire(handle, "k", "t").timers];
