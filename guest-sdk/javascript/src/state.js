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

/** Where the cells of the event's key are, and what one is called in an error. */
const own = {
  what: "cell",
  get: (name) => host.cellGet(name),
  set: (name, bytes) => host.cellSet(name, bytes),
  delete: (name) => host.cellDelete(name),
};

export function cell(name, options = {}) {
  return new Cell(own, text(name, "a cell's name"), options.default);
}

/** A cell that holds JSON. */
export class Cell {
  #of;
  #name;
  #default;

  constructor(of, name, otherwise) {
    this.#of = of;
    this.#name = name;
    // As text, so that each event gets a value of its own to change.
    this.#default = otherwise === undefined ? undefined : textOf(otherwise, `the default of ${of.what} "${name}"`);
  }

  get name() {
    return this.#name;
  }

  get() {
    const bytes = this.#of.get(this.#name);
    if (bytes === undefined || bytes === null) {
      return this.#default === undefined ? undefined : JSON.parse(this.#default);
    }
    try {
      return JSON.parse(decode(bytes));
    } catch (error) {
      // Not a Reject: the event is not to blame for what is in the cell.
      throw new Error(`${this.#of.what} "${this.#name}" does not hold JSON: ${error.message}`, { cause: error });
    }
  }

  set(value) {
    this.#of.set(this.#name, encode(textOf(value, `${this.#of.what} "${this.#name}"`)));
    return value;
  }

  update(change) {
    return this.set(change(this.get()));
  }

  delete() {
    this.#of.delete(this.#name);
  }
}
