// Stacks name lines of the bundle that esbuild made. The build leaves a table in
// the component that says which line of which source each of them came from:
// `build/source_lines.mjs`.

/** The SDK's own call of the handler, which ends every stack and tells nobody anything. */
const LAST_CALL = /\n[^\n]*weir-guest\/src\/handler\.js:\d+\)$/;

/**
 * Translates the places in a stack; leaves what it does not know.
 *
 * @param {string} stack
 * @param {{sources: string[], lines: ([number, number] | 0)[]} | undefined} table
 */
export function sourceLines(stack, table) {
  if (table === undefined) return stack;
  const named = stack.replace(/\/?bundle\.js:(\d+)(?::\d+)?/g, (place, line) => {
    const entry = table.lines[line - 1];
    return entry ? `${table.sources[entry[0]]}:${entry[1]}` : place;
  });
  return named.replace(LAST_CALL, "");
}
