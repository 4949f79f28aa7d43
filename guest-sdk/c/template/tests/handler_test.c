/* Runs natively: `make test`. */

#include "testing/weir_testing.h"

static weir_testing_outcome deliver(const char *data) {
  return weir_testing_deliver(
      (weir_event){.subject = weir_text("events.anna"), .key = weir_text("anna"), .time = 1, .data = weir_text(data)});
}

static void events_are_counted(void) {
  weir_testing_reset();
  weir_check(deliver("{\"amount\":3}").kind == WEIR_TESTING_OK);
  weir_check(deliver("{\"amount\":4}").kind == WEIR_TESTING_OK);
  weir_check_text(weir_testing_cell("anna", "count"), "2");
  weir_check(weir_testing_emitted_len() == 1);
  weir_check_text(weir_testing_emitted_at(0).subject, "counts.anna");
  weir_check_text(weir_testing_emitted_at(0).data, "{\"key\":\"anna\",\"count\":2}");
}

static void a_minute_after_the_first_it_says_so(void) {
  weir_testing_reset();
  deliver("{}");
  weir_check(weir_testing_timer("anna", "quiet") == 1 + WEIR_MINUTE);
  weir_testing_deliver((weir_event){.key = weir_text("anna"), .timer = weir_text("quiet")});
  weir_check_text(weir_testing_emitted_at(0).data, "{\"key\":\"anna\",\"quiet\":true}");
}

static void what_is_not_json_is_rejected(void) {
  weir_testing_reset();
  weir_check(deliver("{").kind == WEIR_TESTING_REJECT);
  weir_check(weir_testing_cell("anna", "count").data == NULL);
}

int main(void) {
  events_are_counted();
  a_minute_after_the_first_it_says_so();
  what_is_not_json_is_rejected();
  return 0;
}
