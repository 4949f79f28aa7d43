// What is sold, as rows: one per order, and the sums of each article. An event becomes
// operations of one transaction, which `weir postgres-sink` applies exactly once.

import { cell, emit, handler, Reject, subjectToken } from "weir-guest";

type OrderEvent =
  | { type: "Placed"; article: string; pieces: number; cents: number }
  | { type: "Shipped"; article: string; pieces: number; cents: number }
  | { type: "Cancelled"; article: string; reason: string };

/** Sums of an article: a row of the table `articles`. */
interface Sums {
  placed: number;
  shipped: number;
  cancelled: number;
  /** Pieces and cents of what was shipped. */
  pieces: number;
  cents: number;
}

const sums = cell<Sums>("sums", { default: { placed: 0, shipped: 0, cancelled: 0, pieces: 0, cents: 0 } });

export const handle = handler((event) => {
  const change = event.json<OrderEvent>();
  const id = event.subject.split(".")[2];
  const row = (set: object) => ({ table: "orders", key: { id }, set: { article: change.article, ...set } });
  const add = (more: Partial<Sums>) => {
    const all = sums.get();
    for (const [name, value] of Object.entries(more)) all[name as keyof Sums] += value;
    return { table: "articles", key: { article: change.article }, set: sums.set(all) };
  };
  emit(`rows.sales.${subjectToken(event.key)}`, operations(change, row, add));
});

function operations(change: OrderEvent, row: (set: object) => object, add: (more: Partial<Sums>) => object): object[] {
  switch (change.type) {
    case "Placed":
      return [row({ pieces: change.pieces, cents: change.cents, status: "placed" }), add({ placed: 1 })];
    case "Shipped":
      return [row({ status: "shipped" }), add({ shipped: 1, pieces: change.pieces, cents: change.cents })];
    case "Cancelled":
      return [row({ status: "cancelled", reason: change.reason }), add({ cancelled: 1 })];
    default:
      throw new Reject(`no event of an order: ${JSON.stringify(change)}`);
  }
}
