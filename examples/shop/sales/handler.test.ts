import assert from "node:assert/strict";
import { test } from "node:test";

import { event, Host } from "weir-guest/testing";

import { handle } from "./handler.ts";

const host = new Host();
const rows = (change: object) => host.deliver(handle, event("shop.order.7", { key: "tea", json: change })).emitted[0]?.json();

test("an order is a row, and a part of its article's sums", () => {
  const [order, article] = rows({ type: "Placed", article: "tea", pieces: 2, cents: 600 });
  assert.deepEqual(order, { table: "orders", key: { id: "7" }, set: { article: "tea", pieces: 2, cents: 600, status: "placed" } });
  assert.deepEqual(article.set, { placed: 1, shipped: 0, cancelled: 0, pieces: 0, cents: 0 });
  const [shipped, sums] = rows({ type: "Shipped", article: "tea", pieces: 2, cents: 600 });
  assert.deepEqual(shipped.set, { article: "tea", status: "shipped" });
  assert.deepEqual(sums.set, { placed: 1, shipped: 1, cancelled: 0, pieces: 2, cents: 600 });
});

test("what is no event of an order is rejected", () => {
  assert.throws(() => rows({ type: "Eaten", article: "tea" }), { name: "Reject" });
});
