// Makes 64-bit integers exact.
//
// componentize-qjs hands a WIT `u64` to JavaScript as a number, which cuts Unix
// nanoseconds to multiples of 256. Its runtime has one function that pushes a
// u64 and one that pops it; here both are made to hand over the *bits* of the
// integer as those of a double, which loses none. `src/host/u64.js` is the other
// half: it turns such doubles into bigints and back.
//
//   push_u64(call, i64)          push_f64(call, f64.reinterpret_i64(i64))
//   pop_u64(call) -> i64         i64.reinterpret_f64(pop_f64(call))
//
// The new bodies are shorter than the old ones and are filled up with `nop`, so
// that no length and no offset in the file changes.
//
// A component is: magic and version, then sections (id, size, content). A core
// module is the same, as the content of a section 1; a component in a component
// is in a section 4.

const COMPONENT = { coreModule: 1, component: 4 };
const MODULE = { import: 2, function: 3, export: 7, code: 10 };
const IMPORTED_FUNCTION = 0;
const HEADER_BYTES = 8;
/** Byte 6 of the header: 1 for components, 0 for core modules. */
const LAYER = 6;

const OP = { end: 0x0b, call: 0x10, localGet: 0x20, nop: 0x01, i64ReinterpretF64: 0xbd, f64ReinterpretI64: 0xbf };

const PUSH = "wit_dylib_push_u64";
const POP = "wit_dylib_pop_u64";
const PUSH_DOUBLE = "wit_dylib_push_f64";
const POP_DOUBLE = "wit_dylib_pop_f64";

/**
 * Changes the component in place.
 *
 * @param {Uint8Array} component of componentize-qjs
 */
export function makeU64Exact(component) {
  const changed = coreModules(component, HEADER_BYTES, component.length).filter((range) => changeModule(component, range));
  if (changed.length !== 1) {
    throw new Error(
      `expected one module with ${PUSH} in the component, found ${changed.length}: ` +
        "this is not a component of the pinned componentize-qjs; see tools/package.json",
    );
  }
}

/** Ranges of the core modules between two offsets, those of nested components too. */
function coreModules(bytes, from, to) {
  const found = [];
  for (const section of sections(bytes, from, to)) {
    if (section.id === COMPONENT.coreModule) found.push(section);
    if (section.id === COMPONENT.component) found.push(...coreModules(bytes, section.start + HEADER_BYTES, section.end));
  }
  return found;
}

function* sections(bytes, from, to) {
  const reader = new Reader(bytes, from);
  while (reader.at < to) {
    const id = reader.byte();
    const size = reader.u32();
    yield { id, start: reader.at, end: reader.at + size };
    reader.at += size;
  }
}

/** Whether it was the runtime's module, which then is changed. */
function changeModule(bytes, { start, end }) {
  if (bytes[start + LAYER] !== 0) throw new Error("a core module of the component has no module's header");
  const parts = new Map();
  for (const section of sections(bytes, start + HEADER_BYTES, end)) parts.set(section.id, section);

  const functions = exportedFunctions(bytes, parts.get(MODULE.export));
  if (!functions.has(PUSH)) return false;
  for (const needed of [POP, PUSH_DOUBLE, POP_DOUBLE]) {
    if (!functions.has(needed)) throw new Error(`the runtime's module exports ${PUSH}, but not ${needed}`);
  }
  const imported = importedFunctions(bytes, parts.get(MODULE.import));
  const bodies = functionBodies(bytes, parts.get(MODULE.code));
  const replace = (name, code) => {
    const body = bodies[functions.get(name) - imported];
    if (!body) throw new Error(`${name} is not a function of the runtime's module itself`);
    fill(bytes, body, name, code);
  };
  replace(PUSH, [OP.localGet, 0, OP.localGet, 1, OP.f64ReinterpretI64, OP.call, ...leb(functions.get(PUSH_DOUBLE))]);
  replace(POP, [OP.localGet, 0, OP.call, ...leb(functions.get(POP_DOUBLE)), OP.i64ReinterpretF64]);
  return true;
}

function fill(bytes, { start, end }, name, code) {
  const noLocals = 0;
  const body = [noLocals, ...code];
  if (body.length + 1 > end - start) throw new Error(`${name} is too short to be changed in place`);
  bytes.fill(OP.nop, start, end);
  bytes.set(body, start);
  bytes[end - 1] = OP.end;
}

function exportedFunctions(bytes, section) {
  const functions = new Map();
  if (!section) return functions;
  const reader = new Reader(bytes, section.start);
  for (let left = reader.u32(); left > 0; left -= 1) {
    const name = reader.name();
    const kind = reader.byte();
    const index = reader.u32();
    if (kind === IMPORTED_FUNCTION) functions.set(name, index);
  }
  return functions;
}

/** How many functions the module imports: they come first in the numbering. */
function importedFunctions(bytes, section) {
  if (!section) return 0;
  let functions = 0;
  const reader = new Reader(bytes, section.start);
  for (let left = reader.u32(); left > 0; left -= 1) {
    reader.name();
    reader.name();
    if (reader.importType() === IMPORTED_FUNCTION) functions += 1;
  }
  return functions;
}

function functionBodies(bytes, section) {
  const bodies = [];
  const reader = new Reader(bytes, section.start);
  for (let left = reader.u32(); left > 0; left -= 1) {
    const size = reader.u32();
    bodies.push({ start: reader.at, end: reader.at + size });
    reader.at += size;
  }
  return bodies;
}

function leb(value) {
  const out = [];
  for (; value > 0x7f; value >>>= 7) out.push((value & 0x7f) | 0x80);
  return [...out, value];
}

class Reader {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
  }

  byte() {
    if (this.at >= this.bytes.length) throw new Error("the component ends in the middle of a section");
    return this.bytes[this.at++];
  }

  u32() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }

  name() {
    const length = this.u32();
    const text = Buffer.from(this.bytes.buffer, this.bytes.byteOffset + this.at, length).toString("utf8");
    this.at += length;
    return text;
  }

  /** Reads what an import is, and returns its kind. */
  importType() {
    const kind = this.byte();
    switch (kind) {
      case IMPORTED_FUNCTION: // its type
        this.u32();
        break;
      case 1: // table: element type, limits
        this.byte();
        this.limits();
        break;
      case 2: // memory
        this.limits();
        break;
      case 3: // global: type, mutability
        this.byte();
        this.byte();
        break;
      case 4: // tag: attribute, type
        this.byte();
        this.u32();
        break;
      default:
        throw new Error(`an import of unknown kind ${kind}`);
    }
    return kind;
  }

  limits() {
    const flags = this.byte();
    this.u32();
    if (flags & 1) this.u32();
  }
}
