/* The calls of the host, failures, and that memory stays flat. */

#include "suite.h"

/* Of the address sanitizer, whose header is not everywhere. */
size_t __sanitizer_get_current_allocated_bytes(void);

#define EVENTS 200000

static weir_result the_event(const weir_event *event) {
  weir_bytes value;
  weir_check_text(event->id, "S:9");
  weir_check_text(event->stream, "S");
  weir_check(event->sequence == 9 && event->time == 5);
  weir_check_text(event->subject, "a.b");
  weir_check_text(event->key, "");
  weir_check(event->timer.data == NULL && !weir_event_is_timer(event, "quiet"));
  weir_check(weir_event_header(event, "weir-test", &value) && weir_is(value, "first"));
  weir_check(weir_event_header(event, "EMPTY", &value) && value.len == 0 && value.data != NULL);
  weir_check(!weir_event_header(event, "Weir-Tes", &value) && value.data == NULL);
  /* A NUL after whatever the host gives. */
  weir_check(event->data.len == 2 && event->data.data[2] == '\0');
  return weir_ok();
}

static weir_result fields(const weir_event *event) {
  return event->timer.data != NULL && weir_event_is_timer(event, "quiet") ? weir_ok() : weir_reject("not the timer");
}

static weir_result cells(const weir_event *event) {
  (void)event;
  weir_bytes value, *names, values[3];
  weir_check(!weir_cell_get("a", &value) && value.data == NULL);
  weir_cell_set("a", weir_slice("x\0y", 3));
  weir_check(weir_cell_get("a", &value) && weir_equal(value, weir_slice("x\0y", 3)));
  weir_cell_set("empty", weir_text(""));
  weir_check(weir_cell_get("empty", &value) && value.len == 0 && value.data != NULL);
  weir_cell_setf("b1", "%d", 1);
  weir_cell_set_integer("b2", -2);
  weir_check(weir_cell_integer("b2", 0) == -2 && weir_cell_integer("b3", 7) == 7);
  weir_check(weir_cell_add("n", 1) == 1 && weir_cell_add("n", -3) == -2);
  weir_check(weir_cell_names("b", &names) == 2 && weir_is(names[0], "b1") && weir_is(names[1], "b2"));
  weir_check(weir_cell_names("nothing", &names) == 0);
  weir_cell_get_many((const char *const[]){"b1", "no", "empty"}, 3, values);
  weir_check(weir_is(values[0], "1") && values[1].data == NULL && values[2].data != NULL && values[2].len == 0);
  weir_cell_get_many(NULL, 0, NULL);
  weir_cell_delete("b1");
  weir_check(!weir_cell_get("b1", &value));
  return weir_ok();
}

static weir_result no_integer(const weir_event *event) {
  (void)event;
  weir_cell_set("n", weir_text("007"));
  weir_cell_add("n", 1);
  return weir_ok();
}

static weir_result overflow(const weir_event *event) {
  (void)event;
  weir_cell_set_integer("n", INT64_MAX);
  weir_cell_add("n", 1);
  return weir_ok();
}

static weir_result emits(const weir_event *event) {
  weir_header headers[] = {{weir_text("Copied-From"), event->id}, {weir_text("X"), weir_text("")}};
  weir_emit("copies.raw", headers, 2, event->data);
  weir_emitf(weir_textf("out.%s", weir_subject_token(weir_text("a.b *ü_-Z9"))), "{\"id\":%j}", event->id);
  weir_check(*weir_subject_token(weir_text("")) == '\0');
  return weir_ok();
}

static weir_result the_timers(const weir_event *event) {
  uint64_t at = 0;
  weir_timer_set("quiet", event->time + WEIR_MINUTE, weir_text("data"));
  weir_check(weir_timer_due("quiet", &at) && at == event->time + 60000000000u);
  weir_timer_set("other", 1, weir_slice(NULL, 0));
  weir_timer_cancel("other");
  weir_check(!weir_timer_due("other", &at));
  return weir_ok();
}

static weir_result configuration(const weir_event *event) {
  (void)event;
  weir_bytes value;
  weir_check(weir_config("name", &value) && weir_is(value, "text"));
  weir_check(!weir_config("nothing", &value) && value.data == NULL);
  weir_check(weir_config_integer("n", 0) == 12 && weir_config_integer("nothing", 3) == 3);
  weir_check(weir_config_number("x", 0) == 2.5 && weir_config_number("nothing", 0.5) == 0.5);
  weir_config_integer("name", 0);
  return weir_ok();
}

static weir_result logs(const weir_event *event) {
  (void)event;
  weir_log(WEIR_INFO, "%s is not UTF-8", "\xff");
  return weir_ok();
}

static weir_result retries(const weir_event *event) {
  weir_cell_set("kept", weir_text("no"));
  weir_emit("a", NULL, 0, weir_text("x"));
  return weir_retry("no rate for %s yet\xff", event->key);
}

static weir_result rejects(const weir_event *event) {
  (void)event;
  return weir_reject("");
}

static weir_result own_result(const weir_event *event) {
  (void)event;
  return (weir_result){.outcome = WEIR_RETRY};
}

static weir_result panics(const weir_event *event) {
  weir_cell_set("kept", weir_text("no"));
  weir_panic("cannot go on with %j", event->key);
}

static weir_result asserts(const weir_event *event) {
  weir_assert(event->key.len > 100);
  return weir_ok();
}

static weir_result long_panic(const weir_event *event) {
  (void)event;
  weir_buffer text = {0};
  for (int i = 0; i < 1500; i++) weir_put(&text, weir_text("ü"));
  weir_panic("a%s", weir_buffer_bytes(&text));
}

static weir_result null_name(const weir_event *event) {
  (void)event;
  weir_cell_delete(NULL);
  return weir_ok();
}

static weir_result shares(const weir_event *event) {
  weir_bytes value;
  uint64_t token = 0;
  if (weir_event_is_timer(event, "leave")) {
    weir_unlock("van");
    return weir_ok();
  }
  bool there = weir_shared_get("sum", &value);
  weir_shared_set("sum", weir_text(weir_textf("%s+", there ? value : weir_text(""))));
  weir_shared_set("gone", weir_text("x"));
  weir_shared_delete("gone");
  weir_check(!weir_shared_get("gone", &value) && value.data == NULL);
  uint64_t held = weir_lock("van", 1000);
  weir_check(weir_try_lock("van", 1000, &token) && token == held);
  weir_cell_set_integer("token", (int64_t)token);
  return weir_ok();
}

/* Takes what an event can: cells, names, many headers, blocks of the arena larger than one. */
static weir_result hungry(const weir_event *event) {
  weir_bytes value, *names, values[2];
  weir_cell_add("n", 1);
  weir_cell_names("", &names);
  weir_cell_get_many((const char *const[]){"n", "no"}, 2, values);
  weir_json_string(event->data, "/text", &value);
  weir_emitf(weir_textf("out.%s", weir_subject_token(event->key)), "%j", value);
  char *large = weir_alloc(event->sequence % 64 == 0 ? 100000 : 100);
  weir_check(large[0] == 0 && large[99] == 0);
  if (event->sequence % 3 == 0) return weir_retry("%d", event->sequence);
  if (event->sequence % 1000 == 1) weir_panic("%d", event->sequence);
  return weir_ok();
}

static void memory_is_flat(void) {
  weir_header headers[4];
  for (int i = 0; i < 4; i++) headers[i] = (weir_header){weir_text("Name"), weir_text("value")};
  weir_event event = {.data = weir_text("{\"text\":\"a\\u00fcb\"}"), .headers = headers, .headers_len = 4};
  size_t settled = 0;
  handler = hungry;
  for (int i = 1; i <= EVENTS; i++) {
    event.sequence = (uint64_t)i;
    weir_testing_deliver(event);
    weir_testing_reset();
    size_t held = __sanitizer_get_current_allocated_bytes();
    if (i == 100) settled = held;
    /* The first of the many that are adopted may make their list; it is bounded. */
    if (i > 100 && held > settled + 1024) {
      fprintf(stderr, "after %d events %zu bytes are held, after 100 it were %zu\n", i, held, settled);
      exit(1);
    }
  }
}

int main(void) {
  weir_header headers[] = {
      {weir_text("Other"), weir_text("x")},
      {weir_text("Weir-Test"), weir_text("first")},
      {weir_text("Weir-Test"), weir_text("second")},
      {weir_text("Empty"), weir_text("")},
  };
  run_event(the_event, (weir_event){.id = weir_text("S:9"), .stream = weir_text("S"), .sequence = 9,
                                    .subject = weir_text("a.b"), .key = weir_text(""), .time = 5, .headers = headers,
                                    .headers_len = 4, .data = weir_text("xy")},
            WEIR_TESTING_OK);
  run_event(fields, (weir_event){.timer = weir_text("quiet")}, WEIR_TESTING_OK);

  weir_testing_reset();
  run(cells, WEIR_TESTING_OK);
  weir_check_text(weir_testing_cell("key", "n"), "-2");
  weir_check_text(run(no_integer, WEIR_TESTING_TRAP).reason, "cell \"n\" holds \"007\", which is no integer");
  weir_check_text(run(overflow, WEIR_TESTING_TRAP).reason,
                  "cell \"n\" holds 9223372036854775807, which is too much to add 1");
  weir_check_text(weir_testing_cell("key", "n"), "-2"); /* what a trap did is undone */

  run_event(emits, (weir_event){.sequence = 4, .data = weir_text("raw")}, WEIR_TESTING_OK);
  weir_check(weir_testing_emitted_len() == 2);
  weir_testing_emitted first = weir_testing_emitted_at(0), second = weir_testing_emitted_at(1);
  weir_check_text(first.subject, "copies.raw");
  weir_check_text(first.data, "raw");
  weir_check(first.headers_len == 2 && weir_is(first.headers[0].name, "Copied-From"));
  weir_check_text(first.headers[0].value, "TEST:4");
  weir_check_text(second.subject, "out.a%2Eb%20%2A%C3%BC_-Z9");
  weir_check_text(second.data, "{\"id\":\"TEST:4\"}");
  weir_check(second.headers_len == 0);

  run_event(the_timers, (weir_event){.time = 1}, WEIR_TESTING_OK);
  weir_check(weir_testing_timer("key", "quiet") == 60000000001u);

  weir_testing_config("name", "text");
  weir_testing_config("n", "12");
  weir_testing_config("x", "2.5");
  weir_check_text(run(configuration, WEIR_TESTING_TRAP).reason,
                  "[config] of handler.toml: name = \"text\" is no integer");
  run(logs, WEIR_TESTING_OK);
  weir_check_text(weir_testing_log(), "\uFFFD is not UTF-8");

  run_event(shares, (weir_event){.key = weir_text("one")}, WEIR_TESTING_OK);
  weir_check_text(run_event(shares, (weir_event){.key = weir_text("two")}, WEIR_TESTING_WAITS).reason, "van");
  weir_check_text(weir_testing_shared("sum"), "+"); /* what the one that waits did is undone */
  weir_check_text(weir_testing_lock_holder("van"), "one");
  run_event(shares, (weir_event){.key = weir_text("two"), .timer = weir_text("leave")}, WEIR_TESTING_OK);
  weir_check_text(weir_testing_lock_holder("van"), "one");
  run_event(shares, (weir_event){.key = weir_text("one"), .timer = weir_text("leave")}, WEIR_TESTING_OK);
  weir_check(weir_testing_lock_holder("van").data == NULL);
  run_event(shares, (weir_event){.key = weir_text("two")}, WEIR_TESTING_OK);
  weir_check_text(weir_testing_cell("two", "token"), "2");
  weir_check_text(weir_testing_shared("sum"), "++");

  weir_check_text(run(retries, WEIR_TESTING_RETRY).reason, "no rate for key yet\uFFFD");
  weir_check(weir_testing_emitted_len() == 0 && weir_testing_cell("key", "kept").data == NULL);
  weir_check(run(rejects, WEIR_TESTING_REJECT).reason.len == 0);
  weir_check(run(own_result, WEIR_TESTING_RETRY).reason.len == 0);
  weir_check_text(run(panics, WEIR_TESTING_TRAP).reason, "cannot go on with \"key\"");
  weir_check(weir_testing_cell("key", "kept").data == NULL);
  weir_testing_outcome outcome = run(asserts, WEIR_TESTING_TRAP);
  weir_check(strstr(outcome.reason.data, "this does not hold: event->key.len > 100") != NULL);
  outcome = run(long_panic, WEIR_TESTING_TRAP);
  weir_check(outcome.reason.len == 2047); /* "a" and 1,023 whole characters */
  weir_check_text(run(null_name, WEIR_TESTING_TRAP).reason, "the cell's name is NULL");

  memory_is_flat();
  return 0;
}
