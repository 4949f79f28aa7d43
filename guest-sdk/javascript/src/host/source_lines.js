// Stacks name lines of the bundle that esbuild made. The build leaves a table in
// the component that says which line of which source each of them came from.

/** `[sources, lines]`: for each line of the bundle, `[source, line]` or nothing. Set by `build.mjs`. */
const table = () => globalThis.__weirSourceLines;

/** The SDK's own call of the handler, which ends every stack and tells nobody anything. */
const LAST_CALL = /\n[^\n]*weir-guest\/src\/handler\.js:\d+\)$/;

/** Translates the places in a stack; leaves what it does not know. */
export function sourceLines(stack) {
  const known = table();
  if (known === undefined) return stack;
  const named = stack.replace(/\/?bundle\.js:(\d+)(?::\d+)?/g, (place, line) => {
    const entry = known.lines[line - 1];
    return entry ? `${known.sources[entry[0]]}:${entry[1]}` : place;
  });
  return named.replace(LAST_CALL, "");
}
