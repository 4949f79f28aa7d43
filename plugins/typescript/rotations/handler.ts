// Numbers the events of each key: 1, 2, 3, … The example that every guest
// language has, byte for byte the same.

import { cell, emit, handler, Reject, Retry, subjectToken } from "weir-guest";

interface Rotation {
  key: string;
  n: number;
  of: string;
}

export const handle = handler((event) => {
  misbehave(event.header("Weir-Test"));
  const n = cell("n", { default: 0 }).update((count) => count + 1);
  const rotation: Rotation = { key: event.key, n, of: event.id };
  emit(`rotations.${subjectToken(event.key)}`, rotation);
});

/** What a test asks for with the header `Weir-Test`. */
function misbehave(order: string | undefined): void {
  switch (order) {
    case "retry":
      throw new Retry("asked to retry");
    case "reject":
      throw new Reject("asked to reject");
    case "trap":
      throw new Error("asked to trap");
    case "spin":
      for (;;);
    case "hoard": {
      const hoard: Uint8Array[] = [];
      for (;;) hoard.push(new Uint8Array(1 << 20).fill(1));
    }
  }
}
