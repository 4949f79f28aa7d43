/* Reading JSON (RFC 8259).
 *
 * One recursive reader walks the whole text, checks it, and on its way remembers where the
 * value stands that a pointer names. There is no tree: a look-up takes no memory but the name
 * of a member that has escapes.
 *
 * Corner cases: a name that is there twice counts as its last one; array elements are named by
 * 0, 1, 2, … without leading zeros; "-" (RFC 6901: the element after the last) never matches;
 * half a surrogate pair is no text and makes the whole invalid, as do bytes that are not
 * UTF-8. */

#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* "-9223372036854775808" has 20; what is longer is read by strtod only. */
#define NUMBER_BYTES_ON_STACK 64

typedef struct reader {
  weir_bytes text;
  size_t at;
  unsigned depth;
  /* What was found last; data NULL where nothing was. */
  weir_bytes found;
  /* Members or elements of the last container that ended. */
  size_t count;
} reader;

static bool value(reader *reader, const char *pointer);

static char peek(const reader *reader) {
  return reader->at < reader->text.len ? reader->text.data[reader->at] : '\0';
}

static void space(reader *reader) {
  while (reader->at < reader->text.len && memchr(" \t\n\r", peek(reader), 4) != NULL) reader->at++;
}

static bool take(reader *reader, char byte) {
  if (reader->at == reader->text.len || peek(reader) != byte) return false;
  reader->at++;
  return true;
}

static bool word(reader *reader, const char *expected) {
  size_t length = strlen(expected);
  if (reader->text.len - reader->at < length) return false;
  if (memcmp(reader->text.data + reader->at, expected, length) != 0) return false;
  reader->at += length;
  return true;
}

static bool digits(reader *reader) {
  size_t begin = reader->at;
  while (peek(reader) >= '0' && peek(reader) <= '9') reader->at++;
  return reader->at > begin;
}

static bool number(reader *reader) {
  take(reader, '-');
  if (!take(reader, '0') && !digits(reader)) return false;
  if (take(reader, '.') && !digits(reader)) return false;
  if (take(reader, 'e') || take(reader, 'E')) {
    if (!take(reader, '+')) take(reader, '-');
    if (!digits(reader)) return false;
  }
  return true;
}

static bool hex4(reader *reader, uint32_t *unit) {
  *unit = 0;
  for (int i = 0; i < 4; i++) {
    char digit = peek(reader);
    int value = digit >= '0' && digit <= '9'   ? digit - '0'
                : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                               : -1;
    if (value < 0) return false;
    *unit = 16 * *unit + (uint32_t)value;
    reader->at++;
  }
  return true;
}

/* After `\u`: a character, of one unit or of a pair of surrogates. */
static bool escaped_character(reader *reader, uint32_t *character) {
  if (!hex4(reader, character)) return false;
  if (*character < 0xD800 || *character > 0xDFFF) return true;
  uint32_t low;
  if (*character > 0xDBFF || !word(reader, "\\u") || !hex4(reader, &low)) return false;
  if (low < 0xDC00 || low > 0xDFFF) return false;
  *character = 0x10000 + ((*character - 0xD800) << 10) + (low - 0xDC00);
  return true;
}

static size_t encode(uint32_t character, char *out) {
  if (character < 0x80) {
    out[0] = (char)character;
    return 1;
  }
  size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--) {
    out[i] = (char)(0x80 | (character & 0x3F));
    character >>= 6;
  }
  static const unsigned char first[] = {0xC0, 0xE0, 0xF0};
  out[0] = (char)(first[length - 2] | character);
  return length;
}

/* A string and, where `out` is not NULL, its text: which is no longer than the escaped form,
 * so `out` has room for that. */
static bool string(reader *reader, char *out, size_t *out_len) {
  size_t written = 0;
  if (!take(reader, '"')) return false;
  while (!take(reader, '"')) {
    if (reader->at == reader->text.len) return false;
    unsigned char byte = (unsigned char)peek(reader);
    char bytes[4];
    size_t length;
    if (byte < 0x20) return false;
    if (byte != '\\') {
      length = weir_utf8_character(reader->text, reader->at);
      if (length == 0) return false;
      memcpy(bytes, reader->text.data + reader->at, length);
      reader->at += length;
    } else {
      reader->at++;
      static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
      char escape = peek(reader);
      const char *known = escape == '\0' ? NULL : strchr(from, escape);
      reader->at++;
      if (known != NULL) {
        bytes[0] = to[known - from];
        length = 1;
      } else {
        uint32_t character;
        if (escape != 'u' || !escaped_character(reader, &character)) return false;
        length = encode(character, bytes);
      }
    }
    if (out != NULL) memcpy(out + written, bytes, length);
    written += length;
  }
  if (out_len != NULL) *out_len = written;
  return true;
}

/* Whether the pointer's first part, `/name`, is this name; *rest is what follows it. */
static bool names(const char *pointer, weir_bytes name, const char **rest) {
  if (pointer == NULL || *pointer != '/') return false;
  pointer++;
  for (size_t i = 0; i < name.len; i++, pointer++) {
    char expected = name.data[i];
    if (expected == '~' || expected == '/') { /* ~0 and ~1 */
      if (pointer[0] != '~' || pointer[1] != (expected == '~' ? '0' : '1')) return false;
      pointer++;
    } else if (*pointer == '\0' || *pointer != expected) {
      return false;
    }
  }
  *rest = pointer;
  return *pointer == '\0' || *pointer == '/';
}

static bool names_index(const char *pointer, size_t index, const char **rest) {
  if (pointer == NULL || *pointer != '/') return false;
  char digits[24]; /* 2^64 has 20 */
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + index % 10);
    index /= 10;
  } while (index > 0);
  return names(pointer, (weir_bytes){digits + at, sizeof digits - at}, rest);
}

/* The name of a member that begins here, its escapes resolved. Only looked at where the
 * pointer goes on, so most names are never copied. */
static bool member_name(reader *reader, weir_bytes *name) {
  size_t begin = reader->at;
  size_t length;
  if (!string(reader, NULL, &length)) return false;
  size_t end = reader->at;
  *name = (weir_bytes){reader->text.data + begin + 1, length};
  if (length == end - begin - 2) return true; /* no escapes */
  char *resolved = weir_arena_take(length + 1);
  reader->at = begin;
  string(reader, resolved, NULL);
  name->data = resolved;
  return true;
}

static bool object(reader *reader, const char *pointer) {
  size_t count = 0;
  space(reader);
  if (!take(reader, '}')) {
    do {
      space(reader);
      weir_bytes name;
      const char *rest;
      bool searched = pointer != NULL && *pointer == '/';
      if (searched ? !member_name(reader, &name) : !string(reader, NULL, NULL)) return false;
      space(reader);
      if (!take(reader, ':')) return false;
      bool named = searched && names(pointer, name, &rest);
      if (named) reader->found = (weir_bytes){NULL, 0}; /* of an earlier one of that name */
      if (!value(reader, named ? rest : NULL)) return false;
      count++;
      space(reader);
    } while (take(reader, ','));
    if (!take(reader, '}')) return false;
  }
  reader->count = count;
  return true;
}

static bool array(reader *reader, const char *pointer) {
  size_t count = 0;
  space(reader);
  if (!take(reader, ']')) {
    do {
      const char *rest;
      bool named = names_index(pointer, count, &rest);
      if (!value(reader, named ? rest : NULL)) return false;
      count++;
      space(reader);
    } while (take(reader, ','));
    if (!take(reader, ']')) return false;
  }
  reader->count = count;
  return true;
}

/* Reads a value. `pointer` is what is left of the one searched for, "" where it is this value,
 * NULL where it is not in here. */
static bool value(reader *reader, const char *pointer) {
  space(reader);
  size_t begin = reader->at;
  if (++reader->depth > WEIR_JSON_DEPTH_MAX) return false;
  bool good;
  switch (peek(reader)) {
    case '{':
      reader->at++;
      good = object(reader, pointer);
      break;
    case '[':
      reader->at++;
      good = array(reader, pointer);
      break;
    case '"':
      good = string(reader, NULL, NULL);
      break;
    case 't':
      good = word(reader, "true");
      break;
    case 'f':
      good = word(reader, "false");
      break;
    case 'n':
      good = word(reader, "null");
      break;
    default:
      good = number(reader);
  }
  reader->depth--;
  if (good && pointer != NULL && *pointer == '\0') {
    reader->found = (weir_bytes){reader->text.data + begin, reader->at - begin};
  }
  return good;
}

static bool whole(reader *reader, const char *pointer) {
  if (reader->text.data == NULL || !value(reader, pointer)) return false;
  space(reader);
  return reader->at == reader->text.len;
}

bool weir_json_valid(weir_bytes json) {
  reader reader = {.text = json};
  return whole(&reader, NULL);
}

/* Without the copy that gives it a NUL. */
static bool find(weir_bytes json, const char *pointer, weir_bytes *value) {
  if (*pointer != '\0' && *pointer != '/') weir_panic("%j is no JSON pointer: begin it with a slash", pointer);
  reader reader = {.text = json};
  if (!whole(&reader, pointer) || reader.found.data == NULL) return false;
  *value = reader.found;
  return true;
}

/* A copy, with a NUL. */
static weir_bytes kept(weir_bytes bytes) {
  char *copy = weir_arena_take(bytes.len + 1);
  memcpy(copy, bytes.data, bytes.len);
  copy[bytes.len] = '\0';
  return (weir_bytes){copy, bytes.len};
}

bool weir_json_at(weir_bytes json, const char *pointer, weir_bytes *value) {
  weir_bytes found;
  if (!find(json, pointer, &found)) return false;
  *value = kept(found);
  return true;
}

bool weir_json_string(weir_bytes json, const char *pointer, weir_bytes *value) {
  weir_bytes found;
  if (!find(json, pointer, &found) || found.data[0] != '"') return false;
  reader reader = {.text = found};
  char *text = weir_arena_take(found.len);
  size_t length;
  string(&reader, text, &length);
  text[length] = '\0'; /* two quotes are gone, so there is room */
  *value = (weir_bytes){text, length};
  return true;
}

bool weir_read_number(weir_bytes text, double *value) {
  reader reader = {.text = text};
  if (text.len == 0 || !number(&reader) || reader.at != text.len) return false;
  char on_stack[NUMBER_BYTES_ON_STACK];
  const char *terminated = on_stack;
  if (text.len < sizeof on_stack) {
    memcpy(on_stack, text.data, text.len);
    on_stack[text.len] = '\0';
  } else {
    terminated = kept(text).data;
  }
  double read = strtod(terminated, NULL);
  if (read - read != 0) return false; /* beyond what a double holds */
  *value = read;
  return true;
}

bool weir_json_number(weir_bytes json, const char *pointer, double *value) {
  weir_bytes found;
  return find(json, pointer, &found) && weir_read_number(found, value);
}

bool weir_json_integer(weir_bytes json, const char *pointer, int64_t *value) {
  weir_bytes found;
  return find(json, pointer, &found) && weir_read_integer(found, value);
}

bool weir_json_bool(weir_bytes json, const char *pointer, bool *value) {
  weir_bytes found;
  if (!find(json, pointer, &found) || (found.data[0] != 't' && found.data[0] != 'f')) return false;
  *value = found.data[0] == 't';
  return true;
}

bool weir_json_count(weir_bytes json, const char *pointer, size_t *count) {
  weir_bytes found;
  if (!find(json, pointer, &found) || (found.data[0] != '{' && found.data[0] != '[')) return false;
  reader reader = {.text = found};
  if (!whole(&reader, NULL)) return false;
  *count = reader.count;
  return true;
}
