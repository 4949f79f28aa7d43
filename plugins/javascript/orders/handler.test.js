// `make test`

import assert from "node:assert/strict";
import { test } from "node:test";

import { event, Host } from "weir-guest/testing";

import { handle } from "./handler.js";

const ORDER = {
  id: "A-1001",
  currency: "EUR",
  placedAt: "2026-03-01T11:00:00+01:00",
  customer: { id: "C.7" },
  items: [
    { sku: "TEA-1", title: "Green tea", qty: 2, price: "4.50", options: { size: "100 g", gift: true } },
    { sku: "POT-2", qty: 1, price: 19.9 },
  ],
  coupon: { code: "SPRING", percent: 10 },
  shipping: { price: "3.9" },
};

const host = () => new Host({ config: { currencies: "EUR,CHF" } });
const order = (changes = {}) => event("shop.orders.new", { key: "C.7", json: { ...ORDER, ...changes } });

test("an order becomes its lines and its totals", () => {
  const { emitted } = host().deliver(handle, order());
  assert.deepEqual(emitted.map(({ subject }) => subject), ["order-lines.C%2E7", "order-lines.C%2E7", "order-totals.C%2E7"]);
  assert.deepEqual(emitted[0].json(), {
    order_id: "A-1001",
    customer_id: "C.7",
    line: 1,
    sku: "TEA-1",
    product: "Green tea",
    options: "gift=true,size=100 g",
    quantity: 2,
    unit_cents: 450,
    line_cents: 900,
  });
  assert.equal(emitted[1].json().product, "POT-2");
  const totals = emitted[2].json();
  assert.equal(totals.placed_at, "2026-03-01T10:00:00.000Z");
  assert.deepEqual([totals.goods_cents, totals.discount_cents, totals.shipping_cents, totals.total_cents], [2890, 289, 390, 2991]);
  assert.deepEqual(totals.customer_so_far, { orders: 1, cents: 2991 });
});

test("a customer's sums grow per currency, and an order that comes twice counts once", () => {
  const shop = host();
  shop.deliver(handle, order());
  assert.deepEqual(shop.deliver(handle, order()).emitted, []);
  shop.deliver(handle, order({ id: "A-1002", coupon: undefined }));
  shop.deliver(handle, order({ id: "A-1003", currency: "CHF" }));
  assert.deepEqual(shop.cellJson("C.7", "totals"), { EUR: { orders: 2, cents: 6271 }, CHF: { orders: 1, cents: 2991 } });
});

test("all that is wrong is said at once", () => {
  const bad = order({ currency: "XAU", placedAt: "soon", items: [{ sku: "A", qty: 0, price: "4,50" }, {}] });
  assert.throws(() => host().deliver(handle, bad), {
    name: "Reject",
    message:
      'currency "XAU" is none of EUR, CHF; placedAt is not a time: "soon"; items[0].qty is not a whole number from 1 to 10000; ' +
      'items[0].price is not an amount: "4,50"; items[1].sku is missing; items[1].qty is not a whole number from 1 to 10000; ' +
      "items[1].price is not an amount: undefined",
  });
  assert.throws(() => host().deliver(handle, event("shop.orders.new", { key: "C", json: null })), /id is missing/);
});
