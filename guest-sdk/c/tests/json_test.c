/* Reading JSON: what is valid, what a pointer finds, numbers, depth. */

#include <math.h>

#include "suite.h"

static const char *const valid[] = {
    "{}", "[]", "0", "-0.5e+10", "\"\"", "true", "null", " [ 1 , {\"a\":[ ] } ]\r\n", "\"\\ud83d\\ude00\"", "\"ü\"",
    "{\"a\":1,\"a\":2}", "1e400",
};

static const char *const invalid[] = {
    "", " ", "{", "[1,]", "{\"a\":1,}", "{a:1}", "01", "-", "1.", ".5", "1e", "+1", "tru", "nul", "\"", "\"\\x\"",
    "\"\\", "\"\\u12\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"", "\"\x01\"", "\"\xff\"", "1 2", "[1}", "{\"a\"}",
    "NaN", "'a'", "[1", "{\"a\":", "\"\\u", "{\"a\":1 \"b\":2}",
};

static weir_result validity(const weir_event *event) {
  (void)event;
  for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
    if (!weir_json_valid(weir_text(valid[i]))) weir_panic("should be valid: %s", valid[i]);
  }
  for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
    if (weir_json_valid(weir_text(invalid[i]))) weir_panic("should be invalid: %s", invalid[i]);
  }
  weir_check(!weir_json_valid(weir_slice("1\0", 2)));
  weir_check(!weir_json_valid(weir_slice(NULL, 0)));
  return weir_ok();
}

/* Every beginning of a text, in memory that ends where it does. */
static weir_result cut_off_anywhere(const weir_event *event) {
  (void)event;
  const char *text = "{\"a\\u00fc\":[1.5e3,\"\\ud83d\\ude00\\n\",true,null,{\"b\":false}],\"ü\":-0}";
  size_t length = strlen(text);
  for (size_t i = 0; i <= length; i++) {
    char *part = malloc(i == 0 ? 1 : i);
    memcpy(part, text, i);
    weir_bytes value;
    weir_check(weir_json_valid((weir_bytes){part, i}) == (i == length));
    weir_check(weir_json_at((weir_bytes){part, i}, "/aü/4/b", &value) == (i == length));
    free(part);
  }
  return weir_ok();
}

static weir_result pointers(const weir_event *event) {
  (void)event;
  weir_bytes json = weir_text(
      "{\"tailnum\":\"N14228\",\"a\":{\"b\":[10,{\"c\":\"x\\ty\"}]},\"m~n\":1,\"p/q\":2,\"\":3,"
      "\"twice\":1,\"twice\":\"last\",\"\\u0061b\":4,\"none\":null,\"d\":1.25,\"big\":9223372036854775808}");
  weir_bytes text;
  int64_t integer;
  double number;
  bool flag;
  size_t count;
  weir_check(weir_json_string(json, "/tailnum", &text));
  weir_check_text(text, "N14228");
  weir_check(weir_json_string(json, "/a/b/1/c", &text));
  weir_check_text(text, "x\ty");
  weir_check(weir_json_at(json, "/a/b", &text));
  weir_check_text(text, "[10,{\"c\":\"x\\ty\"}]");
  weir_check(weir_json_integer(json, "/a/b/0", &integer) && integer == 10);
  weir_check(weir_json_integer(json, "/m~0n", &integer) && integer == 1);
  weir_check(weir_json_integer(json, "/p~1q", &integer) && integer == 2);
  weir_check(weir_json_integer(json, "/", &integer) && integer == 3);
  weir_check(weir_json_integer(json, "/ab", &integer) && integer == 4);
  weir_check(weir_json_string(json, "/twice", &text) && weir_is(text, "last"));
  weir_check(weir_json_number(json, "/d", &number) && number == 1.25);
  weir_check(weir_json_number(json, "/a/b/0", &number) && number == 10);
  weir_check(weir_json_number(json, "/big", &number) && number == 9223372036854775808.0);
  weir_check(weir_json_count(json, "", &count) && count == 11);
  weir_check(weir_json_count(json, "/a/b", &count) && count == 2);
  /* Not there, or of another kind: the output stays. */
  integer = 77;
  weir_check(!weir_json_integer(json, "/big", &integer));
  weir_check(!weir_json_integer(json, "/d", &integer));
  weir_check(!weir_json_integer(json, "/tailnum", &integer));
  weir_check(!weir_json_integer(json, "/tail", &integer));
  weir_check(!weir_json_integer(json, "/tailnum2", &integer));
  weir_check(!weir_json_integer(json, "/a/b/00", &integer));
  weir_check(!weir_json_integer(json, "/a/b/2", &integer));
  weir_check(!weir_json_integer(json, "/a/b/-", &integer));
  weir_check(!weir_json_integer(json, "/a/b/0/x", &integer));
  weir_check(integer == 77);
  weir_check(!weir_json_string(json, "/none", &text) && weir_json_at(json, "/none", &text) && weir_is(text, "null"));
  weir_check(!weir_json_bool(json, "/none", &flag));
  weir_check(weir_json_bool(weir_text("[false,true]"), "/1", &flag) && flag);
  /* The last of two counts, even where the first would have had more below it. */
  weir_check(!weir_json_integer(weir_text("{\"a\":{\"b\":1},\"a\":2}"), "/a/b", &integer));
  return weir_ok();
}

static weir_result numbers(const weir_event *event) {
  (void)event;
  double number;
  int64_t integer;
  weir_check(weir_json_number(weir_text("0.1"), "", &number) && number == 0.1);
  weir_check(weir_json_number(weir_text("-1.7976931348623157e308"), "", &number) && number == -1.7976931348623157e308);
  weir_check(!weir_json_number(weir_text("1e309"), "", &number));
  char digits[400];
  memset(digits, '1', sizeof digits);
  digits[1] = '.';
  weir_check(weir_json_number((weir_bytes){digits, sizeof digits}, "", &number) && fabs(number - 10.0 / 9) < 1e-15);
  weir_check(weir_json_integer(weir_text("-9223372036854775808"), "", &integer) && integer == INT64_MIN);
  weir_check(weir_json_integer(weir_text("9223372036854775807"), "", &integer) && integer == INT64_MAX);
  weir_check(!weir_json_integer(weir_text("-9223372036854775809"), "", &integer));
  weir_check(!weir_json_integer(weir_text("1.0"), "", &integer));
  return weir_ok();
}

static weir_result depth(const weir_event *event) {
  (void)event;
  char deep[2 * WEIR_JSON_DEPTH_MAX + 2];
  size_t levels = WEIR_JSON_DEPTH_MAX;
  memset(deep, '[', levels);
  memset(deep + levels, ']', levels);
  weir_check(weir_json_valid((weir_bytes){deep, 2 * levels}));
  memset(deep, '[', levels + 1);
  memset(deep + levels + 1, ']', levels + 1);
  weir_check(!weir_json_valid((weir_bytes){deep, 2 * levels + 2}));
  return weir_ok();
}

static weir_result bad_pointer(const weir_event *event) {
  (void)event;
  bool flag;
  weir_json_bool(weir_text("{}"), "a", &flag);
  return weir_ok();
}

int main(void) {
  run(validity, WEIR_TESTING_OK);
  run(cut_off_anywhere, WEIR_TESTING_OK);
  run(pointers, WEIR_TESTING_OK);
  run(numbers, WEIR_TESTING_OK);
  run(depth, WEIR_TESTING_OK);
  weir_check_text(run(bad_pointer, WEIR_TESTING_TRAP).reason, "\"a\" is no JSON pointer: begin it with a slash");
  return 0;
}
