// Around the user's function: from what the bindings give to an `Event`, and
// from what the function throws to what the host expects.

import { host } from "#host";

import { Event } from "./event.js";

export function handler(handle) {
  if (typeof handle !== "function") {
    throw new TypeError(`handler() takes the function that handles an event, not ${typeof handle}`);
  }
  return (raw) => {
    const event = new Event(raw);
    host.begin(event);
    try {
      const returned = handle(event);
      if (typeof returned?.then === "function") {
        throw new TypeError(
          "the handler returned a promise, but there is nothing to wait for: all that it can do is done at once. " +
            "Make it an ordinary function, without `async`",
        );
      }
    } catch (error) {
      throw host.failure(error);
    }
  };
}
