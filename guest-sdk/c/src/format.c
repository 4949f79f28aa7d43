/* weir_format and what is built on it. The formats are listed in weir.h. */

#include <string.h>

#include "internal.h"

#define WIDTH_MAX 64   /* more is a mistake, and would let a format make any amount of memory */
#define FRACTION_DIGITS_MAX 9
#define FRACTION_DIGITS_USUAL 6
#define DOUBLE_MAX 1e18 /* beyond, the integer part does not fit in 64 bits */
#define BUFFER_BYTES_MIN 64

weir_arg weir_arg_bytes(weir_bytes value) {
  return (weir_arg){.type = WEIR_ARG_BYTES, .value.bytes = value};
}

weir_arg weir_arg_text(const char *value) {
  return (weir_arg){.type = WEIR_ARG_TEXT, .value.text = value};
}

weir_arg weir_arg_integer(int64_t value) {
  return (weir_arg){.type = WEIR_ARG_INTEGER, .value.integer = value};
}

weir_arg weir_arg_unsigned(uint64_t value) {
  return (weir_arg){.type = WEIR_ARG_UNSIGNED, .value.unsigned_integer = value};
}

weir_arg weir_arg_double(double value) {
  return (weir_arg){.type = WEIR_ARG_DOUBLE, .value.number = value};
}

/* ---- Buffers ---- */

void weir_put(weir_buffer *buffer, weir_bytes bytes) {
  if (bytes.len >= SIZE_MAX - buffer->len) weir_stop(weir_text("out of memory"));
  size_t needed = buffer->len + bytes.len + 1;
  if (needed > buffer->capacity) {
    size_t capacity = buffer->capacity < SIZE_MAX / 2 ? 2 * buffer->capacity : needed;
    if (capacity < needed) capacity = needed;
    if (capacity < BUFFER_BYTES_MIN) capacity = BUFFER_BYTES_MIN;
    buffer->data = weir_arena_grow(buffer->data, buffer->capacity, capacity);
    buffer->capacity = capacity;
  }
  if (bytes.len > 0) memcpy(buffer->data + buffer->len, bytes.data, bytes.len);
  buffer->len += bytes.len;
  buffer->data[buffer->len] = '\0';
}

weir_bytes weir_buffer_bytes(const weir_buffer *buffer) {
  return (weir_bytes){buffer->data == NULL ? "" : buffer->data, buffer->len};
}

static void put_literal(weir_buffer *buffer, const char *text) {
  weir_put(buffer, weir_text(text));
}

static void put_byte(weir_buffer *buffer, char byte) {
  weir_put(buffer, (weir_bytes){&byte, 1});
}

/* ---- Numbers ---- */

static void put_unsigned(weir_buffer *buffer, uint64_t value, unsigned base, size_t width, char fill, bool negative) {
  char digits[WIDTH_MAX + 1];
  size_t at = sizeof digits;
  do {
    digits[--at] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value > 0);
  size_t length = sizeof digits - at + (negative ? 1 : 0);
  if (negative && fill == '0') put_byte(buffer, '-');
  for (; length < width; length++) put_byte(buffer, fill);
  if (negative && fill != '0') put_byte(buffer, '-');
  weir_put(buffer, (weir_bytes){digits + at, sizeof digits - at});
}

/* The part of a double that is below one, in units of 1/scale: exact, then rounded to the
 * nearest, of two as near to the even one, as printf does. */
static uint64_t scaled_fraction(double part, uint64_t scale, bool odd) {
  uint64_t bits;
  memcpy(&bits, &part, sizeof bits);
  int exponent = (int)(bits >> 52); /* part = mantissa / 2^shift, its sign bit is zero */
  int shift = 1075 - exponent;
  if (exponent == 0 || shift > 127) return 0; /* below half a unit */
  unsigned __int128 product = (unsigned __int128)((bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52) * scale;
  uint64_t units = (uint64_t)(product >> shift);
  unsigned __int128 rest = product - ((unsigned __int128)units << shift);
  unsigned __int128 half = (unsigned __int128)1 << (shift - 1);
  if (scale > 1) odd = units % 2 == 1;
  return units + (rest > half || (rest == half && odd) ? 1 : 0);
}

static void put_double(weir_buffer *buffer, double value, size_t digits) {
  if (!(value > -DOUBLE_MAX && value < DOUBLE_MAX)) { /* also what is not a number */
    put_literal(buffer, "null");
    return;
  }
  uint64_t scale = 1;
  for (size_t i = 0; i < digits; i++) scale *= 10;
  double magnitude = value < 0 ? -value : value;
  uint64_t whole = (uint64_t)magnitude;
  uint64_t fraction = scaled_fraction(magnitude - (double)whole, scale, whole % 2 == 1); /* the difference is exact */
  if (fraction >= scale) {
    fraction -= scale;
    whole++;
  }
  put_unsigned(buffer, whole, 10, 0, ' ', value < 0 && (whole > 0 || fraction > 0));
  if (digits == 0) return;
  put_byte(buffer, '.');
  put_unsigned(buffer, fraction, 10, digits, '0', false);
}

/* ---- Text ---- */

/* The letter of the short escapes that JSON has; 0 for other bytes. */
static char short_escape(unsigned char byte) {
  switch (byte) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
  }
}

/* As serde_json and most others write it: short escapes where JSON has them, everything else
 * but control characters as it is. */
static void put_json(weir_buffer *buffer, weir_bytes text) {
  static const char hex[] = "0123456789abcdef";
  if (text.data == NULL) {
    put_literal(buffer, "null");
    return;
  }
  put_byte(buffer, '"');
  size_t plain = 0; /* where what was not yet put begins */
  for (size_t at = 0; at < text.len;) {
    unsigned char byte = (unsigned char)text.data[at];
    size_t length = weir_utf8_character(text, at);
    char escape = short_escape(byte);
    if (length > 0 && byte >= 0x20 && escape == 0) {
      at += length;
      continue;
    }
    weir_put(buffer, (weir_bytes){text.data + plain, at - plain});
    plain = ++at;
    if (length == 0) {
      put_literal(buffer, WEIR_REPLACEMENT);
    } else if (escape != 0) {
      weir_put(buffer, (weir_bytes){(char[]){'\\', escape}, 2});
    } else {
      weir_put(buffer, (weir_bytes){(char[]){'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]}, 6});
    }
  }
  weir_put(buffer, (weir_bytes){text.data + plain, text.len - plain});
  put_byte(buffer, '"');
}

/* ---- Formats ---- */

/* Where in which format we are; the errors name both. */
typedef struct reader {
  const char *format;
  size_t at;
  size_t begin; /* of the directive being read */
  const weir_arg *args;
  size_t args_len;
  size_t next;
} reader;

static const char *const type_names[] = {"bytes", "text", "an integer", "an integer", "a double"};

static _Noreturn void wrong(const reader *reader, const char *what) {
  weir_buffer message = {0};
  put_literal(&message, "the format \"");
  put_literal(&message, reader->format);
  put_literal(&message, "\": ");
  weir_put(&message, (weir_bytes){reader->format + reader->begin, reader->at - reader->begin});
  put_literal(&message, what);
  weir_stop(weir_utf8(weir_buffer_bytes(&message)));
}

static const weir_arg *argument(reader *reader) {
  if (reader->next == reader->args_len) wrong(reader, " has no argument");
  return &reader->args[reader->next++];
}

static _Noreturn void mismatch(const reader *reader, const weir_arg *arg) {
  weir_buffer what = {0};
  put_literal(&what, " was given ");
  put_literal(&what, type_names[arg->type]);
  wrong(reader, what.data);
}

/* No more than `length_max` bytes of it: a C string that is cut needs no NUL. */
static weir_bytes text_argument(reader *reader, size_t length_max) {
  const weir_arg *arg = argument(reader);
  if (arg->type == WEIR_ARG_BYTES) {
    weir_bytes bytes = arg->value.bytes;
    return (weir_bytes){bytes.data, bytes.len < length_max ? bytes.len : length_max};
  }
  if (arg->type != WEIR_ARG_TEXT) mismatch(reader, arg);
  const char *text = arg->value.text;
  size_t length = 0;
  while (text != NULL && length < length_max && text[length] != '\0') length++;
  return (weir_bytes){text, length};
}

/* Its magnitude and sign. */
static uint64_t integer_argument(reader *reader, bool *negative) {
  const weir_arg *arg = argument(reader);
  *negative = false;
  if (arg->type == WEIR_ARG_UNSIGNED) return arg->value.unsigned_integer;
  if (arg->type != WEIR_ARG_INTEGER) mismatch(reader, arg);
  *negative = arg->value.integer < 0;
  return *negative ? 0 - (uint64_t)arg->value.integer : (uint64_t)arg->value.integer;
}

static size_t length_argument(reader *reader) {
  bool negative;
  uint64_t length = integer_argument(reader, &negative);
  if (negative) wrong(reader, " was given a length below zero");
  return length > SIZE_MAX ? SIZE_MAX : (size_t)length;
}

static size_t digits(reader *reader) {
  size_t number = 0;
  for (; reader->format[reader->at] >= '0' && reader->format[reader->at] <= '9'; reader->at++) {
    if (number <= WIDTH_MAX) number = 10 * number + (size_t)(reader->format[reader->at] - '0');
  }
  if (number > WIDTH_MAX) wrong(reader, " is wider than 64");
  return number;
}

/* One directive: its percent sign is read. */
static void directive(reader *reader, weir_buffer *buffer) {
  const char *format = reader->format;
  char fill = ' ';
  if (format[reader->at] == '0') {
    fill = '0';
    reader->at++;
  }
  size_t width = digits(reader);
  bool has_precision = format[reader->at] == '.';
  size_t precision = 0;
  if (has_precision && format[++reader->at] == '*') {
    reader->at++;
    precision = length_argument(reader);
  } else if (has_precision) {
    precision = digits(reader);
  }
  while (format[reader->at] != '\0' && strchr("hlzt", format[reader->at]) != NULL) reader->at++;
  char kind = format[reader->at];
  if (kind == '\0') wrong(reader, " ends too early");
  reader->at++;
  bool negative;
  switch (kind) {
    case '%':
      put_byte(buffer, '%');
      break;
    case 'c':
      put_byte(buffer, (char)integer_argument(reader, &negative));
      break;
    case 'd':
    case 'i':
    case 'u': {
      uint64_t value = integer_argument(reader, &negative);
      put_unsigned(buffer, value, 10, width, fill, negative);
      break;
    }
    case 'x': {
      uint64_t value = integer_argument(reader, &negative);
      put_unsigned(buffer, value, 16, width, fill, negative);
      break;
    }
    case 'f': {
      const weir_arg *arg = argument(reader);
      if (arg->type != WEIR_ARG_DOUBLE) mismatch(reader, arg);
      if (!has_precision) precision = FRACTION_DIGITS_USUAL;
      if (precision > FRACTION_DIGITS_MAX) wrong(reader, " asks for more than 9 digits");
      put_double(buffer, arg->value.number, precision);
      break;
    }
    case 's':
    case 'j': {
      weir_bytes text = text_argument(reader, has_precision ? precision : SIZE_MAX);
      if (kind == 'j') {
        put_json(buffer, text);
      } else if (text.data == NULL) {
        wrong(reader, " was given NULL; %j writes null");
      } else {
        for (size_t length = text.len; length < width; length++) put_byte(buffer, ' ');
        weir_put(buffer, text);
      }
      break;
    }
    default:
      wrong(reader, " is not known; weir.h lists what there is");
  }
}

void weir_put_args(weir_buffer *buffer, const weir_arg *args, size_t args_len) {
  if (args_len == 0 || args[0].type != WEIR_ARG_TEXT || args[0].value.text == NULL) {
    weir_stop(weir_text("a format must be a C string"));
  }
  reader reader = {.format = args[0].value.text, .args = args, .args_len = args_len, .next = 1};
  while (true) {
    size_t plain = strcspn(reader.format + reader.at, "%");
    weir_put(buffer, (weir_bytes){reader.format + reader.at, plain});
    reader.at += plain;
    if (reader.format[reader.at] == '\0') break;
    reader.begin = reader.at++;
    directive(&reader, buffer);
  }
  reader.begin = reader.at;
  if (reader.next != args_len) wrong(&reader, "there are more arguments than it names");
}

weir_bytes weir_format_args(const weir_arg *args, size_t args_len) {
  weir_buffer buffer = {0};
  weir_put_args(&buffer, args, args_len);
  return weir_buffer_bytes(&buffer);
}

const char *weir_textf_args(const weir_arg *args, size_t args_len) {
  weir_bytes text = weir_format_args(args, args_len);
  /* Cut there, two names could become one. */
  if (memchr(text.data, '\0', text.len) != NULL) weir_panic("a name may not have a zero byte: %j", text);
  return text.data;
}

void weir_panic_args(const weir_arg *args, size_t args_len) {
  weir_stop(weir_utf8(weir_format_args(args, args_len)));
}

weir_result weir_fail_args(weir_outcome outcome, const weir_arg *args, size_t args_len) {
  return (weir_result){outcome, weir_utf8(weir_format_args(args, args_len))};
}
