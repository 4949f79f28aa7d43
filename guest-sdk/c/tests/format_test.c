/* weir_format: every directive, what does not fit, and doubles beside printf's. */

#include <float.h>
#include <math.h>

#include "suite.h"

static weir_result every_directive(const weir_event *event) {
  weir_bytes none = weir_slice(NULL, 0);
  weir_check_text(weir_format("plain"), "plain");
  weir_check_text(weir_format(""), "");
  weir_check_text(weir_format("%s|%s|%.3s|%.*s", "text", event->key, "cut off", 2, event->id), "text|key|cut|TE");
  weir_check_text(weir_format("%d %i %u", -1, 2, 3u), "-1 2 3");
  weir_check_text(weir_format("%lld %llu %zu %ld %hhd", (long long)INT64_MIN, (unsigned long long)UINT64_MAX, (size_t)7,
                              8L, (signed char)-9),
                  "-9223372036854775808 18446744073709551615 7 8 -9");
  /* Lengths mean nothing: what is given is printed whole. */
  weir_check_text(weir_format("%d %d", UINT64_MAX, INT64_MIN), "18446744073709551615 -9223372036854775808");
  weir_check_text(weir_format("%x %08x %4d|%04d|%5s", 255u, 0xBEEF, -7, -7, "ab"), "ff 0000beef   -7|-007|   ab");
  weir_check_text(weir_format("100%% %c", 'x'), "100% x");
  weir_check_text(weir_format("%j %j", none, (const char *)NULL), "null null");
  weir_check_text(weir_format("%d", true), "1");
  /* Nested, and as many arguments as there may be. */
  weir_check_text(weir_format("%s", weir_format("<%s>", weir_textf("%d", 1))), "<1>");
  weir_check_text(weir_format("%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d", 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5),
                  "123456789012345");
  return weir_ok();
}

static weir_result json_strings(const weir_event *event) {
  (void)event;
  weir_check_text(weir_format("%j", "N14228"), "\"N14228\"");
  weir_check_text(weir_format("%j", "a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
  weir_check_text(weir_format("%j", "\b\f\n\r\t\x01\x1f\x7f"), "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
  weir_check_text(weir_format("%j", "ü€😀"), "\"ü€😀\"");
  weir_check_text(weir_format("%j", weir_slice("a\0b", 3)), "\"a\\u0000b\"");
  /* Not UTF-8: stray, too short, overlong, surrogate, too large, cut off. */
  weir_check_text(weir_format("%j", "\x80|\xC3|\xC0\xAF|\xED\xA0\x80|\xF4\x90\x80\x80|\xE2\x82"),
                  "\"\uFFFD|\uFFFD|\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD\uFFFD|\uFFFD\uFFFD\"");
  return weir_ok();
}

static weir_result cut_without_a_nul(const weir_event *event) {
  (void)event;
  char *raw = malloc(3); /* an address sanitizer sees what is read beyond */
  memcpy(raw, "abc", 3);
  weir_check_text(weir_format("%.*s", 3, raw), "abc");
  free(raw);
  return weir_ok();
}

static weir_result doubles(const weir_event *event) {
  (void)event;
  weir_check_text(weir_format("%f %.0f %.3f %.1f", 1.5, 2.5, -0.0004, 1e17), "1.500000 2 0.000 100000000000000000.0");
  weir_check_text(weir_format("%.2f %.1f %.3f", 0.125, 9.96, -12.3456), "0.12 10.0 -12.346");
  weir_check_text(weir_format("%f %f %.1f %f", NAN, -INFINITY, 1e18, DBL_MAX), "null null null null");
  weir_check_text(weir_format("%.9f %f", DBL_MIN, DBL_TRUE_MIN), "0.000000000 0.000000");
  uint64_t random = 88172645463325252u;
  for (int i = 0; i < 20000; i++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    double value = ldexp((double)(int64_t)random, (int)(random % 70) - 66 - (int)(random % 7));
    if (fabs(value) >= 1e18) continue;
    int digits = (int)(random / 7 % 10);
    char format[8], expected[64];
    snprintf(format, sizeof format, "%%.%df", digits);
    snprintf(expected, sizeof expected, format, value);
    if (strspn(expected, "-0.") == strlen(expected)) snprintf(expected, sizeof expected, format, 0.0); /* no minus zero */
    weir_check_text(weir_format((const char *)format, value), expected);
  }
  return weir_ok();
}

static weir_result number_for_text(const weir_event *event) {
  (void)event;
  weir_format("n=%s", 1);
  return weir_ok();
}
static weir_result text_for_number(const weir_event *event) {
  (void)event;
  weir_format("%d", "one");
  return weir_ok();
}
static weir_result too_few(const weir_event *event) {
  (void)event;
  weir_format("%d %d", 1);
  return weir_ok();
}
static weir_result too_many(const weir_event *event) {
  (void)event;
  weir_format("%d", 1, 2);
  return weir_ok();
}
static weir_result unknown(const weir_event *event) {
  (void)event;
  weir_format("%q", 1);
  return weir_ok();
}
static weir_result null_text(const weir_event *event) {
  (void)event;
  weir_format("%s", (const char *)NULL);
  return weir_ok();
}
static weir_result wide(const weir_event *event) {
  (void)event;
  weir_format("%999999d", 1);
  return weir_ok();
}
static weir_result cut_off(const weir_event *event) {
  (void)event;
  weir_format("%l", 1);
  return weir_ok();
}
static weir_result name_with_nul(const weir_event *event) {
  (void)event;
  weir_textf("%s", weir_slice("a\0b", 3));
  return weir_ok();
}

int main(void) {
  run(every_directive, WEIR_TESTING_OK);
  run(json_strings, WEIR_TESTING_OK);
  run(cut_without_a_nul, WEIR_TESTING_OK);
  run(doubles, WEIR_TESTING_OK);
  const struct {
    weir_result (*function)(const weir_event *);
    const char *message;
  } mistakes[] = {
      {number_for_text, "the format \"n=%s\": %s was given an integer"},
      {text_for_number, "the format \"%d\": %d was given text"},
      {too_few, "the format \"%d %d\": %d has no argument"},
      {too_many, "the format \"%d\": there are more arguments than it names"},
      {unknown, "the format \"%q\": %q is not known; weir.h lists what there is"},
      {null_text, "the format \"%s\": %s was given NULL; %j writes null"},
      {wide, "the format \"%999999d\": %999999 is wider than 64"},
      {cut_off, "the format \"%l\": %l ends too early"},
      {name_with_nul, "a name may not have a zero byte: \"a\\u0000b\""},
  };
  for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
    weir_check_text(run(mistakes[i].function, WEIR_TESTING_TRAP).reason, mistakes[i].message);
  }
  return 0;
}
