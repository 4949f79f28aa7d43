/* Numbers the events of each key: 1, 2, 3, … The example that every guest language has, byte
 * for byte the same. */

#include <stdlib.h>
#include <string.h>

#include "weir.h"

#define HOARD_STEP_BYTES (1 << 20)

/* What a test asks for with the header `Weir-Test`. */
static weir_result misbehave(weir_bytes order) {
  if (weir_is(order, "retry")) return weir_retry("asked to retry");
  if (weir_is(order, "reject")) return weir_reject("asked to reject");
  if (weir_is(order, "trap")) weir_panic("asked to trap");
  if (weir_is(order, "spin")) {
    for (volatile unsigned turns = 0;; turns++) continue;
  }
  if (weir_is(order, "hoard")) {
    while (true) {
      char *piece = malloc(HOARD_STEP_BYTES);
      if (piece == NULL) weir_panic("out of memory");
      memset(piece, 1, HOARD_STEP_BYTES);
      /* So that the compiler does not see that nobody reads it. */
      __asm__ volatile("" : : "r"(piece) : "memory");
    }
  }
  return weir_ok();
}

weir_result weir_handle(const weir_event *event) {
  weir_bytes order;
  if (weir_event_header(event, "Weir-Test", &order)) {
    weir_result result = misbehave(order);
    if (result.outcome != WEIR_OK) return result;
  }
  int64_t n = weir_cell_add("n", 1);
  weir_emitf(weir_textf("rotations.%s", weir_subject_token(event->key)), "{\"key\":%j,\"n\":%d,\"of\":%j}",
             event->key, n, event->id);
  return weir_ok();
}
