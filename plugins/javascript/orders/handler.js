// A webshop's orders, flattened. `order.js` reads and checks an order; here is
// what becomes of one: an event per line, one with the totals, and the customer's
// sums in the cell `totals`. An order that was seen before is left out.

import { cell, config, emit, handler, log, Reject, subjectToken } from "weir-guest";

import { readOrder } from "./order.js";

/** How many ids of a customer's orders are kept, to know those that come twice. */
const RECENT_ORDERS = 50;

const recent = cell("recent", { default: [] });
const totals = cell("totals", { default: {} });

export const handle = handler((event) => {
  const currencies = (config.get("currencies") ?? "EUR").split(",");
  const { order, problems } = readOrder(event.json(), currencies);
  if (problems.length > 0) throw new Reject(problems.join("; "));
  if (recent.get().includes(order.id)) {
    log.warn(`order ${order.id} came again`);
    return;
  }
  recent.update((ids) => [...ids, order.id].slice(-RECENT_ORDERS));

  const customer = subjectToken(event.key);
  for (const line of order.lines) emit(`order-lines.${customer}`, { order_id: order.id, customer_id: event.key, ...line });

  const sums = totals.update((all) => ({ ...all, [order.currency]: add(all[order.currency], order.total_cents) }));
  emit(`order-totals.${customer}`, {
    order_id: order.id,
    customer_id: event.key,
    placed_at: order.placed_at ?? event.date.toISOString(),
    currency: order.currency,
    lines: order.lines.length,
    goods_cents: order.goods_cents,
    discount_cents: order.discount_cents,
    shipping_cents: order.shipping_cents,
    total_cents: order.total_cents,
    customer_so_far: sums[order.currency],
  });
});

function add(sum = { orders: 0, cents: 0 }, cents) {
  return { orders: sum.orders + 1, cents: sum.cents + cents };
}
