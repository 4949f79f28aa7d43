/* The export `handle`, and every call of the host.
 *
 * Who owns what, by the component model's rules as the generated code has them:
 *
 *   the event, and what the host returns   ours: allocated by cabi_realloc, freed here after the event
 *   what is handed to the host             stays ours; it copies, within the call
 *   a failure's reason                     the host's: from malloc, freed by cabi_post_handle */

#include <stdlib.h>
#include <string.h>

#include "generated/handler.h"
#include "internal.h"

/* How much of a message is logged before a trap: what fits beside others in the smallest log
 * budget that is of any use, and in a dead letter. */
#define LAST_WORDS_BYTES_MAX 2048

/* Replaces the generated one, which is weak: memory for what the host hands over, with a NUL
 * after it, so that any text of it is a C string too. */
#ifdef __wasm__
__attribute__((export_name("cabi_realloc")))
#endif
void *cabi_realloc(void *pointer, size_t old_size, size_t align, size_t new_size);

void *cabi_realloc(void *pointer, size_t old_size, size_t align, size_t new_size) {
  static _Alignas(8) char empty[8]; /* also NUL-terminated; never freed */
  (void)old_size;
  (void)align; /* at most 8, which malloc always has */
  if (new_size == 0) return empty;
  char *block = new_size == SIZE_MAX ? NULL : realloc(pointer, new_size + 1);
  if (block == NULL) weir_stop(weir_text("out of memory"));
  block[new_size] = '\0';
  return block;
}

_Noreturn void weir_stop(weir_bytes message) {
  size_t length = message.len < LAST_WORDS_BYTES_MAX ? message.len : LAST_WORDS_BYTES_MAX;
  while (length > 0 && length < message.len && (message.data[length] & 0xC0) == 0x80) length--; /* whole characters */
  handler_string_t text = {(uint8_t *)message.data, length};
  weir_handler_log_write(WEIR_HANDLER_LOG_LEVEL_ERROR, &text);
  weir_trap();
}

/* ---- To and from the generated types ---- */

/* A parameter: the host only reads it. */
static handler_string_t name(const char *text, const char *what) {
  if (text == NULL) weir_panic("the %s is NULL", what);
  return (handler_string_t){(uint8_t *)text, strlen(text)};
}

static handler_list_u8_t list(weir_bytes bytes) {
  return (handler_list_u8_t){(uint8_t *)bytes.data, bytes.len};
}

/* What the host allocated, from now on freed with the arena. What has no length was not
 * allocated, whatever its pointer is. */
static weir_bytes adopted(void *pointer, size_t len) {
  if (len == 0) return (weir_bytes){"", 0};
  weir_arena_adopt(pointer);
  return (weir_bytes){pointer, len};
}

static weir_bytes adopted_text(handler_string_t text) {
  return adopted(text.ptr, text.len);
}

/* ---- The handler ---- */

weir_result weir_ok(void) {
  return (weir_result){WEIR_OK, {NULL, 0}};
}

static weir_event received(handler_event_t *from) {
  weir_event event = {
      .id = adopted_text(from->id),
      .stream = adopted_text(from->stream),
      .sequence = from->sequence,
      .subject = adopted_text(from->subject),
      .key = adopted_text(from->key),
      .time = from->time,
      .headers_len = from->headers.len,
      .data = adopted(from->data.ptr, from->data.len),
  };
  if (from->timer.is_some) event.timer = adopted_text(from->timer.val);
  weir_header *headers = weir_alloc(event.headers_len * sizeof *headers);
  for (size_t i = 0; i < event.headers_len; i++) {
    headers[i].name = adopted_text(from->headers.ptr[i].name);
    headers[i].value = adopted_text(from->headers.ptr[i].value);
  }
  adopted(from->headers.ptr, from->headers.len);
  event.headers = headers;
  return event;
}

bool exports_handler_handle(handler_event_t *from, handler_failure_t *failure) {
  weir_event event = received(from);
  weir_result result = weir_handle(&event);
  if (result.outcome != WEIR_OK) {
    weir_bytes reason = weir_utf8(result.reason); /* it may be one that the handler made itself */
    handler_string_t copy = {NULL, reason.len};
    if (reason.len > 0) {
      copy.ptr = cabi_realloc(NULL, 0, 1, reason.len);
      memcpy(copy.ptr, reason.data, reason.len);
    }
    bool reject = result.outcome == WEIR_REJECT;
    failure->tag = reject ? WEIR_HANDLER_TYPES_FAILURE_REJECT : WEIR_HANDLER_TYPES_FAILURE_RETRY;
    *(reject ? &failure->val.reject : &failure->val.retry) = copy;
  }
  weir_arena_reset();
  return result.outcome == WEIR_OK;
}

static char lower(char byte) {
  return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

bool weir_event_header(const weir_event *event, const char *name, weir_bytes *value) {
  weir_bytes wanted = weir_text(name);
  for (size_t i = 0; i < event->headers_len; i++) {
    weir_bytes other = event->headers[i].name;
    size_t same = 0;
    if (other.len != wanted.len) continue;
    while (same < wanted.len && lower(other.data[same]) == lower(wanted.data[same])) same++;
    if (same == wanted.len) {
      *value = event->headers[i].value;
      return true;
    }
  }
  *value = (weir_bytes){NULL, 0};
  return false;
}

bool weir_event_is_timer(const weir_event *event, const char *name) {
  return weir_is(event->timer, name);
}

/* ---- Cells ---- */

bool weir_cell_get(const char *cell, weir_bytes *value) {
  handler_string_t wanted = name(cell, "cell's name");
  handler_list_u8_t got;
  bool there = weir_handler_state_get(&wanted, &got);
  *value = there ? adopted(got.ptr, got.len) : (weir_bytes){NULL, 0};
  return there;
}

void weir_cell_set(const char *cell, weir_bytes value) {
  handler_string_t wanted = name(cell, "cell's name");
  handler_list_u8_t bytes = list(value);
  weir_handler_state_set(&wanted, &bytes);
}

void weir_cell_delete(const char *cell) {
  handler_string_t wanted = name(cell, "cell's name");
  weir_handler_state_delete(&wanted);
}

void weir_cell_get_many(const char *const *cells, size_t cells_len, weir_bytes *values) {
  if (cells_len == 0) return;
  handler_string_t *wanted = weir_alloc(cells_len * sizeof *wanted);
  for (size_t i = 0; i < cells_len; i++) wanted[i] = name(cells[i], "cell's name");
  handler_list_string_t request = {wanted, cells_len};
  handler_list_option_list_u8_t got;
  weir_handler_state_get_many(&request, &got);
  for (size_t i = 0; i < cells_len; i++) {
    handler_option_list_u8_t *one = &got.ptr[i];
    values[i] = one->is_some ? adopted(one->val.ptr, one->val.len) : (weir_bytes){NULL, 0};
  }
  adopted(got.ptr, got.len);
}

bool weir_shared_get(const char *cell, weir_bytes *value) {
  handler_string_t wanted = name(cell, "shared cell's name");
  handler_list_u8_t got;
  bool there = weir_handler_shared_get(&wanted, &got);
  *value = there ? adopted(got.ptr, got.len) : (weir_bytes){NULL, 0};
  return there;
}

void weir_shared_set(const char *cell, weir_bytes value) {
  handler_string_t wanted = name(cell, "shared cell's name");
  handler_list_u8_t bytes = list(value);
  weir_handler_shared_set(&wanted, &bytes);
}

void weir_shared_delete(const char *cell) {
  handler_string_t wanted = name(cell, "shared cell's name");
  weir_handler_shared_delete(&wanted);
}

bool weir_try_lock(const char *lock, uint64_t ttl_ms, uint64_t *token) {
  handler_string_t wanted = name(lock, "lock's name");
  return weir_handler_shared_try_lock(&wanted, ttl_ms, token);
}

uint64_t weir_lock(const char *lock, uint64_t ttl_ms) {
  handler_string_t wanted = name(lock, "lock's name");
  return weir_handler_shared_lock(&wanted, ttl_ms);
}

void weir_unlock(const char *lock) {
  handler_string_t wanted = name(lock, "lock's name");
  weir_handler_shared_unlock(&wanted);
}

size_t weir_cell_names(const char *prefix, weir_bytes **names) {
  handler_string_t wanted = name(prefix, "prefix of cells");
  handler_list_string_t got;
  weir_handler_state_cells(&wanted, &got);
  *names = weir_alloc(got.len * sizeof **names);
  for (size_t i = 0; i < got.len; i++) (*names)[i] = adopted_text(got.ptr[i]);
  adopted(got.ptr, got.len);
  return got.len;
}

int64_t weir_cell_integer(const char *cell, int64_t otherwise) {
  weir_bytes text;
  if (!weir_cell_get(cell, &text)) return otherwise;
  int64_t value;
  if (!weir_read_integer(text, &value)) weir_panic("cell %j holds %.40j, which is no integer", cell, text);
  return value;
}

void weir_cell_set_integer(const char *cell, int64_t value) {
  weir_cell_setf(cell, "%d", value);
}

int64_t weir_cell_add(const char *cell, int64_t difference) {
  int64_t sum, value = weir_cell_integer(cell, 0);
  if (__builtin_add_overflow(value, difference, &sum)) {
    weir_panic("cell %j holds %d, which is too much to add %d", cell, value, difference);
  }
  weir_cell_set_integer(cell, sum);
  return sum;
}

/* ---- Emits, timers, configuration, log ---- */

void weir_emit(const char *subject, const weir_header *headers, size_t headers_len, weir_bytes data) {
  handler_string_t to = name(subject, "subject");
  weir_handler_output_list_header_t sent = {NULL, headers_len};
  if (headers_len > 0) sent.ptr = weir_alloc(headers_len * sizeof *sent.ptr);
  for (size_t i = 0; i < headers_len; i++) {
    sent.ptr[i].name = (handler_string_t){(uint8_t *)headers[i].name.data, headers[i].name.len};
    sent.ptr[i].value = (handler_string_t){(uint8_t *)headers[i].value.data, headers[i].value.len};
  }
  handler_list_u8_t bytes = list(data);
  weir_handler_output_emit(&to, &sent, &bytes);
}

void weir_timer_set(const char *timer, uint64_t at, weir_bytes data) {
  handler_string_t wanted = name(timer, "timer's name");
  handler_list_u8_t bytes = list(data);
  weir_handler_timers_set(&wanted, at, &bytes);
}

void weir_timer_cancel(const char *timer) {
  handler_string_t wanted = name(timer, "timer's name");
  weir_handler_timers_cancel(&wanted);
}

bool weir_timer_due(const char *timer, uint64_t *at) {
  handler_string_t wanted = name(timer, "timer's name");
  return weir_handler_timers_due(&wanted, at);
}

bool weir_config(const char *setting, weir_bytes *value) {
  handler_string_t wanted = name(setting, "setting's name");
  handler_string_t got;
  bool there = weir_handler_config_get(&wanted, &got);
  *value = there ? adopted_text(got) : (weir_bytes){NULL, 0};
  return there;
}

int64_t weir_config_integer(const char *setting, int64_t otherwise) {
  weir_bytes text;
  if (!weir_config(setting, &text)) return otherwise;
  int64_t value;
  if (!weir_read_integer(text, &value)) weir_panic("[config] of handler.toml: %s = %j is no integer", setting, text);
  return value;
}

double weir_config_number(const char *setting, double otherwise) {
  weir_bytes text;
  if (!weir_config(setting, &text)) return otherwise;
  double value;
  if (!weir_read_number(text, &value)) weir_panic("[config] of handler.toml: %s = %j is no number", setting, text);
  return value;
}

void weir_log_args(weir_level level, const weir_arg *args, size_t args_len) {
  weir_bytes text = weir_utf8(weir_format_args(args, args_len));
  handler_string_t message = {(uint8_t *)text.data, text.len};
  weir_handler_log_write((weir_handler_log_level_t)level, &message);
}
