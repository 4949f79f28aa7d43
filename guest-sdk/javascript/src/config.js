// The `[config]` table of `handler.toml`.

import { host } from "#host";

import { text } from "./values.js";

export const config = {
  get(name) {
    return host.config(text(name, "a setting's name")) ?? undefined;
  },

  number(name, otherwise) {
    const value = config.get(name);
    if (value === undefined) {
      if (otherwise !== undefined) return otherwise;
      throw new Error(`[config] of handler.toml has no "${name}"`);
    }
    const number = Number(value);
    if (value.trim() === "" || Number.isNaN(number)) throw new Error(`[config] ${name} = "${value}" is not a number`);
    return number;
  },
};
