// From the source map of the bundle to a table of lines: all that a stack needs,
// and small enough to be kept in the component. `src/host/source_lines.js` reads it.

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/**
 * @param {{sources: string[], mappings: string}} map source map, version 3
 * @param {(source: string) => string} name what a source is called in stacks
 * @returns {{sources: string[], lines: ([number, number] | 0)[]}} for each line
 *   of the bundle the source and the line in it (from 1) of its first mapping
 */
export function sourceLines(map, name) {
  let source = 0;
  let line = 0;
  const lines = map.mappings.split(";").map((segments) => {
    let entry = 0;
    for (const segment of segments.split(",")) {
      // Column in the bundle, source, line, column: each as the difference to the one before.
      const [, sourceStep, lineStep] = numbers(segment);
      if (sourceStep === undefined) continue;
      source += sourceStep;
      line += lineStep;
      if (entry === 0) entry = [source, line + 1];
    }
    return entry;
  });
  return { sources: map.sources.map(name), lines };
}

/** Numbers of a segment: base 64 digits of 5 bits, the lowest first, with the sign in the lowest bit. */
function numbers(segment) {
  const out = [];
  let value = 0;
  let shift = 0;
  for (const character of segment) {
    const digit = BASE64.indexOf(character);
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    out.push(value & 1 ? -(value >>> 1) : value >>> 1);
    value = 0;
    shift = 0;
  }
  return out;
}
