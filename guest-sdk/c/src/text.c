/* Bytes, subject tokens, UTF-8, decimal integers. */

#include <string.h>

#include "internal.h"

weir_bytes weir_text(const char *text) {
  return (weir_bytes){text, text == NULL ? 0 : strlen(text)};
}

weir_bytes weir_slice(const void *data, size_t len) {
  return (weir_bytes){data, len};
}

bool weir_equal(weir_bytes a, weir_bytes b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool weir_is(weir_bytes bytes, const char *text) {
  return bytes.data != NULL && weir_equal(bytes, weir_text(text));
}

const char *weir_subject_token(weir_bytes text) {
  static const char hex[] = "0123456789ABCDEF";
  if (text.len > (SIZE_MAX - 1) / 3) weir_panic("a text of %zu bytes is no part of a subject", text.len);
  char *token = weir_arena_take(3 * text.len + 1);
  size_t at = 0;
  for (size_t i = 0; i < text.len; i++) {
    unsigned char byte = (unsigned char)text.data[i];
    bool plain = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                 (byte >= '0' && byte <= '9') || byte == '_' || byte == '-';
    if (plain) {
      token[at++] = (char)byte;
    } else {
      token[at++] = '%';
      token[at++] = hex[byte >> 4];
      token[at++] = hex[byte & 15];
    }
  }
  token[at] = '\0';
  return token;
}

/* The table "Well-Formed UTF-8 Byte Sequences" of the Unicode standard (3-7). */
size_t weir_utf8_character(weir_bytes text, size_t at) {
  const unsigned char *byte = (const unsigned char *)text.data + at;
  size_t left = text.len - at;
  unsigned char lowest = 0x80, highest = 0xBF; /* of the second byte */
  size_t length;
  if (byte[0] < 0x80) return 1;
  if (byte[0] >= 0xC2 && byte[0] <= 0xDF) {
    length = 2;
  } else if (byte[0] >= 0xE0 && byte[0] <= 0xEF) {
    length = 3;
    if (byte[0] == 0xE0) lowest = 0xA0;  /* else it were shorter */
    if (byte[0] == 0xED) highest = 0x9F; /* else a surrogate */
  } else if (byte[0] >= 0xF0 && byte[0] <= 0xF4) {
    length = 4;
    if (byte[0] == 0xF0) lowest = 0x90;
    if (byte[0] == 0xF4) highest = 0x8F; /* else beyond U+10FFFF */
  } else {
    return 0;
  }
  if (left < length || byte[1] < lowest || byte[1] > highest) return 0;
  for (size_t i = 2; i < length; i++) {
    if (byte[i] < 0x80 || byte[i] > 0xBF) return 0;
  }
  return length;
}

weir_bytes weir_utf8(weir_bytes text) {
  size_t at = 0;
  while (at < text.len) {
    size_t length = weir_utf8_character(text, at);
    if (length == 0) break;
    at += length;
  }
  if (at == text.len) return text;
  weir_buffer mended = {0};
  weir_put(&mended, (weir_bytes){text.data, at});
  while (at < text.len) {
    size_t length = weir_utf8_character(text, at);
    weir_put(&mended, length == 0 ? weir_text(WEIR_REPLACEMENT) : (weir_bytes){text.data + at, length});
    at += length == 0 ? 1 : length;
  }
  return weir_buffer_bytes(&mended);
}

bool weir_read_integer(weir_bytes text, int64_t *value) {
  bool negative = text.len > 0 && text.data[0] == '-';
  size_t at = negative ? 1 : 0;
  if (at == text.len || (text.data[at] == '0' && text.len > 1)) return false;
  int64_t read = 0; /* below zero, where there is one number more */
  for (; at < text.len; at++) {
    int digit = text.data[at] - '0';
    if (digit < 0 || digit > 9) return false;
    if (__builtin_mul_overflow(read, 10, &read) || __builtin_sub_overflow(read, digit, &read)) return false;
  }
  if (!negative && read == INT64_MIN) return false;
  *value = negative ? read : -read;
  return true;
}
