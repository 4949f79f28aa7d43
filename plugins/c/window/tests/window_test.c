/* The statistic, the window's bounds, and what is not a reading. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "testing/weir_testing.h"

static weir_testing_outcome deliver(const char *data) {
  return weir_testing_deliver((weir_event){.key = weir_text("t-17"), .data = weir_text(data)});
}

static void reading(double value) {
  char data[64];
  snprintf(data, sizeof data, "{\"sensor\":\"t-17\",\"value\":%.17g}", value);
  weir_check(deliver(data).kind == WEIR_TESTING_OK);
}

static size_t readings_kept(void) {
  return weir_testing_cell("t-17", "window").len / sizeof(double);
}

static void an_outlier_is_emitted(void) {
  weir_testing_reset();
  for (int i = 0; i < 20; i++) {
    reading(i % 2 == 0 ? 20 : 22); /* mean 21, sample deviation 1.0259… */
    weir_check(weir_testing_emitted_len() == 0);
  }
  reading(24); /* 2.9 sigma */
  weir_check(weir_testing_emitted_len() == 0);
  reading(26);
  weir_check(weir_testing_emitted_len() == 1);
  weir_check_text(weir_testing_emitted_at(0).subject, "outliers.t-17");
  weir_check_text(weir_testing_emitted_at(0).data,
                  "{\"sensor\":\"t-17\",\"value\":26.000,\"mean\":21.143,\"sigma\":1.195,\"of\":\"TEST:22\"}");
}

static void too_few_readings_say_nothing(void) {
  weir_testing_reset();
  for (int i = 0; i < 10; i++) {
    reading(i == 9 ? 1e6 : 1);
    weir_check(weir_testing_emitted_len() == 0);
  }
}

static void large_readings_keep_their_digits(void) {
  weir_testing_reset();
  for (int i = 0; i < 20; i++) reading(1e9 + (i % 2 == 0 ? 0 : 0.002));
  reading(1e9 + 0.1);
  weir_check_text(weir_testing_emitted_at(0).data,
                  "{\"sensor\":\"t-17\",\"value\":1000000000.100,\"mean\":1000000000.001,\"sigma\":0.001,\"of\":\"TEST:21\"}");
}

static void the_window_is_bounded_and_follows_its_setting(void) {
  weir_testing_reset();
  weir_testing_config("readings", "12");
  for (int i = 0; i < 40; i++) reading(i);
  weir_check(readings_kept() == 12);
  weir_testing_reset();
  for (int i = 0; i < 60; i++) reading(i);
  weir_check(readings_kept() == 50);
  weir_testing_config("readings", "10");
  reading(60);
  double newest[10];
  weir_check(readings_kept() == 10);
  memcpy(newest, weir_testing_cell("t-17", "window").data, sizeof newest);
  weir_check(newest[0] == 51 && newest[9] == 60);
}

static void what_is_no_reading_is_rejected(void) {
  const char *const bad[] = {"", "{", "{\"sensor\":\"t-17\"}", "{\"value\":\"1\"}", "{\"value\":1e999}", "{\"value\":null}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    weir_testing_outcome outcome = deliver(bad[i]);
    weir_check(outcome.kind == WEIR_TESTING_REJECT);
    weir_check_text(outcome.reason, "no number at /value");
  }
}

static void wrong_settings_and_foreign_cells_say_so(void) {
  weir_testing_reset();
  weir_testing_config("readings", "1");
  weir_check_text(deliver("{\"value\":1}").reason, "[config] of handler.toml: readings = \"1\", may be 10 to 1024");
  weir_testing_reset();
  weir_testing_set_cell("t-17", "window", weir_text("abc"));
  weir_check_text(deliver("{\"value\":1}").reason, "cell \"window\" has 3 bytes, which are no doubles");
}

int main(void) {
  an_outlier_is_emitted();
  too_few_readings_say_nothing();
  large_readings_keep_their_digits();
  the_window_is_bounded_and_follows_its_setting();
  what_is_no_reading_is_rejected();
  wrong_settings_and_foreign_cells_say_so();
  return 0;
}
