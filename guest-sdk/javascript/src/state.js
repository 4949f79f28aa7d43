// Cells: what a handler remembers of the event's key.

import { host } from "#host";

import { bytesOf, text, textOf } from "./values.js";
import { decode, encode } from "./utf8.js";

export const cells = {
  get(name) {
    return host.cellGet(text(name, "a cell's name")) ?? undefined;
  },

  getMany(names) {
    return host.cellGetMany(names.map((name) => text(name, "a cell's name"))).map((value) => value ?? undefined);
  },

  set(name, value) {
    host.cellSet(text(name, "a cell's name"), bytesOf(value, `cell "${name}"`));
  },

  delete(name) {
    host.cellDelete(text(name, "a cell's name"));
  },

  keys(prefix = "") {
    return host.cellNames(text(prefix, "a prefix of cells"));
  },
};

export function cell(name, options = {}) {
  return new Cell(text(name, "a cell's name"), options.default);
}

/** A cell that holds JSON. */
class Cell {
  #name;
  #default;

  constructor(name, otherwise) {
    this.#name = name;
    // As text, so that each event gets a value of its own to change.
    this.#default = otherwise === undefined ? undefined : textOf(otherwise, `the default of cell "${name}"`);
  }

  get name() {
    return this.#name;
  }

  get() {
    const bytes = host.cellGet(this.#name);
    if (bytes === undefined || bytes === null) {
      return this.#default === undefined ? undefined : JSON.parse(this.#default);
    }
    try {
      return JSON.parse(decode(bytes));
    } catch (error) {
      // Not a Reject: the event is not to blame for what is in the cell.
      throw new Error(`cell "${this.#name}" does not hold JSON: ${error.message}`, { cause: error });
    }
  }

  set(value) {
    host.cellSet(this.#name, encode(textOf(value, `cell "${this.#name}"`)));
    return value;
  }

  update(change) {
    return this.set(change(this.get()));
  }

  delete() {
    host.cellDelete(this.#name);
  }
}
