// Reads an order as the shop sends it. All that is wrong with it is found at
// once, with the place in the document, so that one dead letter tells it all.
//
//     { "id": "A-1001", "currency": "EUR", "placedAt": "2026-03-01T10:00:00Z",
//       "customer": { "id": "C-7" },
//       "items": [{ "sku": "TEA-1", "title": "Green tea", "qty": 2, "price": "4.50",
//                   "options": { "size": "100 g" } }],
//       "coupon": { "code": "SPRING", "percent": 10 }, "shipping": { "price": "3.90" } }
//
// Money is text with a point, or a number, and becomes whole cents.

const QUANTITY_MAX = 10_000;
/** Below a thousand millions, so that sums of lines stay exact. */
const MONEY = /^\d{1,9}(\.\d{1,2})?$/;

/** The order with the names and units of the books, and what is wrong with it. */
export function readOrder(document, currencies) {
  const problems = [];
  const check = (holds, problem) => {
    if (!holds) problems.push(problem);
    return holds;
  };

  const id = document?.id;
  check(typeof id === "string" && id !== "", "id is missing");
  const currency = document?.currency;
  check(currencies.includes(currency), `currency ${JSON.stringify(currency)} is none of ${currencies.join(", ")}`);
  const placed_at = readTime(document?.placedAt, check);

  const items = document?.items;
  check(Array.isArray(items) && items.length > 0, "items is empty");
  const lines = (Array.isArray(items) ? items : []).map((item, index) => readLine(item, index, check));

  const percent = document?.coupon?.percent ?? 0;
  check(typeof percent === "number" && percent >= 0 && percent <= 100, "coupon.percent is not between 0 and 100");
  const goods_cents = lines.reduce((sum, line) => sum + line.line_cents, 0);
  const discount_cents = Math.round((goods_cents * percent) / 100);
  const shipping_cents = readMoney(document?.shipping?.price ?? 0, "shipping.price", check);
  const total_cents = goods_cents - discount_cents + shipping_cents;
  return { order: { id, currency, placed_at, lines, goods_cents, discount_cents, shipping_cents, total_cents }, problems };
}

function readLine(item, index, check) {
  const at = `items[${index}]`;
  const quantity = item?.qty;
  check(typeof item?.sku === "string" && item.sku !== "", `${at}.sku is missing`);
  check(
    Number.isInteger(quantity) && quantity > 0 && quantity <= QUANTITY_MAX,
    `${at}.qty is not a whole number from 1 to ${QUANTITY_MAX}`,
  );
  const unit_cents = readMoney(item?.price, `${at}.price`, check);
  return {
    line: index + 1,
    sku: item?.sku,
    product: item?.title ?? item?.sku,
    options: Object.entries(item?.options ?? {})
      .map(([name, value]) => `${name}=${value}`)
      .sort()
      .join(","),
    quantity,
    unit_cents,
    line_cents: quantity * unit_cents,
  };
}

function readMoney(value, at, check) {
  const text = String(value);
  if (!check(MONEY.test(text), `${at} is not an amount: ${JSON.stringify(value)}`)) return 0;
  const [whole, part = ""] = text.split(".");
  return Number(whole) * 100 + Number(part.padEnd(2, "0"));
}

function readTime(value, check) {
  if (value === undefined) return undefined;
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) {
    check(false, `placedAt is not a time: ${JSON.stringify(value)}`);
    return undefined;
  }
  return time.toISOString();
}
