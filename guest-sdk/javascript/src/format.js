// Values as people read them in a log: strings as they are, errors with their
// stack, everything else as JSON or, where it has no form in it, as a string.

/** The arguments of one call of `log.…` or `console.…`. */
export function line(values) {
  return values.map(shown).join(" ");
}

function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return withStack(value);
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, plain) ?? String(value);
  } catch {
    return String(value); // it contains itself
  }
}

function plain(_name, value) {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  return value;
}

/**
 * An error as `Name: message` and its stack, and so its causes.
 *
 * @param {(stack: string) => string} [translate] names the lines of the source
 */
export function withStack(error, translate = (stack) => stack) {
  const parts = [];
  const seen = new Set();
  for (let next = error; next !== undefined && next !== null && !seen.has(next); next = next.cause) {
    seen.add(next);
    parts.push(next instanceof Error ? one(next, translate) : String(next));
  }
  return parts.join("\ncaused by: ");
}

function one(error, translate) {
  const head = error.message === "" ? error.name : `${error.name}: ${error.message}`;
  const stack = typeof error.stack === "string" ? error.stack.trimEnd() : "";
  // QuickJS's stack has only the calls, that of Node begins with the head.
  if (stack.startsWith(head) || stack.startsWith("Error")) return translate(stack);
  return stack === "" ? head : `${head}\n${translate(stack)}`;
}
