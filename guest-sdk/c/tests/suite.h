/* A handler per case: `run` delivers one event to a function. */
#ifndef SUITE_H
#define SUITE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/weir_testing.h"

static weir_result (*handler)(const weir_event *event);

weir_result weir_handle(const weir_event *event) {
  return handler(event);
}

/* Delivers this event; fails the test where the outcome is another. */
static inline weir_testing_outcome run_event(weir_result (*function)(const weir_event *), weir_event event,
                                             weir_testing_kind expected) {
  handler = function;
  weir_testing_outcome outcome = weir_testing_deliver(event);
  if (outcome.kind != expected) {
    fprintf(stderr, "outcome %d, expected %d: %.*s\n", (int)outcome.kind, (int)expected, (int)outcome.reason.len,
            outcome.reason.data == NULL ? "" : outcome.reason.data);
    exit(1);
  }
  return outcome;
}

static inline weir_testing_outcome run(weir_result (*function)(const weir_event *), weir_testing_kind expected) {
  return run_event(function, (weir_event){0}, expected);
}

/* What the last delivery emitted as its only event. */
static inline weir_bytes only_data(void) {
  weir_check(weir_testing_emitted_len() == 1);
  return weir_testing_emitted_at(0).data;
}

#endif
