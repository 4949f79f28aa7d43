// Counts the events of each key on `counts.<key>`, and says there when a minute
// has passed since the first one.

import { cell, emit, handler, subjectToken, timers } from "weir-guest";

const MINUTE_MS = 60_000;

export const handle = handler((event) => {
  const subject = `counts.${subjectToken(event.key)}`;
  if (event.timer === "quiet") {
    emit(subject, { key: event.key, quiet: true });
    return;
  }

  event.json(); // what is not JSON is rejected: a dead letter
  const count = cell("count", { default: 0 }).update((n) => n + 1);
  emit(subject, { key: event.key, count });
  if (count === 1) timers.after("quiet", MINUTE_MS);
});
