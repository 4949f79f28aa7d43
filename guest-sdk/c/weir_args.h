/* How weir_format and the like take arguments: each is boxed with its type, so that the
 * formatter can refuse what does not fit. C's own variable arguments have no types, and a
 * wrong one reads whatever is there.
 *
 * Included by weir.h. */
#ifndef WEIR_ARGS_H
#define WEIR_ARGS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define _Noreturn [[noreturn]]
extern "C" {
#endif

/* Bytes with a length. {NULL, 0} means that there is none. */
typedef struct weir_bytes {
  const char *data;
  size_t len;
} weir_bytes;

typedef enum weir_arg_type {
  WEIR_ARG_BYTES,
  WEIR_ARG_TEXT,
  WEIR_ARG_INTEGER,
  WEIR_ARG_UNSIGNED,
  WEIR_ARG_DOUBLE
} weir_arg_type;

typedef struct weir_arg {
  weir_arg_type type;
  union {
    weir_bytes bytes;
    const char *text;
    int64_t integer;
    uint64_t unsigned_integer;
    double number;
  } value;
} weir_arg;

weir_arg weir_arg_bytes(weir_bytes value);
weir_arg weir_arg_text(const char *value);
weir_arg weir_arg_integer(int64_t value);
weir_arg weir_arg_unsigned(uint64_t value);
weir_arg weir_arg_double(double value);

#ifdef __cplusplus
}
#else

/* One argument, boxed. An argument of a type that is not here does not compile: cast it. */
#define WEIR_ARG(x)                       \
  _Generic((x),                           \
      weir_bytes: weir_arg_bytes,         \
      char *: weir_arg_text,              \
      const char *: weir_arg_text,        \
      _Bool: weir_arg_unsigned,           \
      char: weir_arg_integer,             \
      signed char: weir_arg_integer,      \
      short: weir_arg_integer,            \
      int: weir_arg_integer,              \
      long: weir_arg_integer,             \
      long long: weir_arg_integer,        \
      unsigned char: weir_arg_unsigned,   \
      unsigned short: weir_arg_unsigned,  \
      unsigned int: weir_arg_unsigned,    \
      unsigned long: weir_arg_unsigned,   \
      unsigned long long: weir_arg_unsigned, \
      float: weir_arg_double,             \
      double: weir_arg_double)(x)

/* All of them and their number: the two parameters of the …_args functions. The format is the
 * first, and there are up to 15 beside it. */
#define WEIR_ARGS(...)                                                        \
  (const weir_arg[]){WEIR_CAT(WEIR_MAP_, WEIR_COUNT(__VA_ARGS__))(__VA_ARGS__)}, \
      (size_t)WEIR_COUNT(__VA_ARGS__)

#define WEIR_CAT(a, b) WEIR_CAT_(a, b)
#define WEIR_CAT_(a, b) a##b
#define WEIR_COUNT(...) WEIR_COUNT_(__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define WEIR_COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, count, ...) count

#define WEIR_MAP_1(x) WEIR_ARG(x)
#define WEIR_MAP_2(x, ...) WEIR_ARG(x), WEIR_MAP_1(__VA_ARGS__)
#define WEIR_MAP_3(x, ...) WEIR_ARG(x), WEIR_MAP_2(__VA_ARGS__)
#define WEIR_MAP_4(x, ...) WEIR_ARG(x), WEIR_MAP_3(__VA_ARGS__)
#define WEIR_MAP_5(x, ...) WEIR_ARG(x), WEIR_MAP_4(__VA_ARGS__)
#define WEIR_MAP_6(x, ...) WEIR_ARG(x), WEIR_MAP_5(__VA_ARGS__)
#define WEIR_MAP_7(x, ...) WEIR_ARG(x), WEIR_MAP_6(__VA_ARGS__)
#define WEIR_MAP_8(x, ...) WEIR_ARG(x), WEIR_MAP_7(__VA_ARGS__)
#define WEIR_MAP_9(x, ...) WEIR_ARG(x), WEIR_MAP_8(__VA_ARGS__)
#define WEIR_MAP_10(x, ...) WEIR_ARG(x), WEIR_MAP_9(__VA_ARGS__)
#define WEIR_MAP_11(x, ...) WEIR_ARG(x), WEIR_MAP_10(__VA_ARGS__)
#define WEIR_MAP_12(x, ...) WEIR_ARG(x), WEIR_MAP_11(__VA_ARGS__)
#define WEIR_MAP_13(x, ...) WEIR_ARG(x), WEIR_MAP_12(__VA_ARGS__)
#define WEIR_MAP_14(x, ...) WEIR_ARG(x), WEIR_MAP_13(__VA_ARGS__)
#define WEIR_MAP_15(x, ...) WEIR_ARG(x), WEIR_MAP_14(__VA_ARGS__)
#define WEIR_MAP_16(x, ...) WEIR_ARG(x), WEIR_MAP_15(__VA_ARGS__)

#endif
#endif
