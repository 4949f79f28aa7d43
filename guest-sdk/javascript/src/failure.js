// The two ways in which a handler fails on purpose. Anything else that it throws
// is a fault: the host logs it with its stack and tries again.

/** Try again later, with the host's backoff; after the last attempt it is a dead letter. */
export class Retry extends Error {
  constructor(reason, options) {
    super(reason, options);
    this.name = "Retry";
  }
}

/** Never going to work: a dead letter at once. */
export class Reject extends Error {
  constructor(reason, options) {
    super(reason, options);
    this.name = "Reject";
  }
}

/** The message, and those of its causes, as `a: b: c`. */
export function reasonOf(error) {
  const parts = [];
  // A chain may go round in circles.
  const seen = new Set();
  for (let next = error; next !== undefined && next !== null && !seen.has(next); next = next.cause) {
    seen.add(next);
    parts.push(next instanceof Error ? next.message : String(next));
  }
  return parts.join(": ");
}
