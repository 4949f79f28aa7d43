// Integers of 64 bits, which cross the bindings as doubles of the same bits: see
// `build/exact_u64.mjs`.

const double = new Float64Array(1);
const integer = new BigUint64Array(double.buffer);

export function bigint(bits) {
  double[0] = bits;
  return integer[0];
}

export function bits(value) {
  integer[0] = value;
  return double[0];
}
