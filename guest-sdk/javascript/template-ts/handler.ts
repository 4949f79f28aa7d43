// Counts the events of each key on `counts.<key>`, and says there when a minute
// has passed since the first one.

import { cell, emit, handler, subjectToken, timers } from "weir-guest";

/** The payload of an event. */
interface Input {
  amount: number;
}

/** What is emitted. */
type Output = { key: string; count: number } | { key: string; quiet: true };

const MINUTE_MS = 60_000;

export const handle = handler((event) => {
  const send = (output: Output) => emit(`counts.${subjectToken(event.key)}`, output);
  if (event.timer === "quiet") {
    send({ key: event.key, quiet: true });
    return;
  }

  event.json<Input>(); // what is not JSON is rejected: a dead letter
  const count = cell("count", { default: 0 }).update((n) => n + 1);
  send({ key: event.key, count });
  if (count === 1) timers.after("quiet", MINUTE_MS);
});
