/* Counts the events of each key, and says when a key has been quiet for a minute
 * after its first event. */

#include "weir.h"

static const char *counts_subject(const weir_event *event) {
  return weir_textf("counts.%s", weir_subject_token(event->key));
}

weir_result weir_handle(const weir_event *event) {
  if (weir_event_is_timer(event, "quiet")) {
    weir_emitf(counts_subject(event), "{\"key\":%j,\"quiet\":true}", event->key);
    return weir_ok();
  }
  if (!weir_json_valid(event->data)) return weir_reject("the data is not JSON");
  int64_t count = weir_cell_add("count", 1);
  weir_emitf(counts_subject(event), "{\"key\":%j,\"count\":%d}", event->key, count);
  if (count == 1) weir_timer_set("quiet", event->time + WEIR_MINUTE, weir_text(""));
  return weir_ok();
}
