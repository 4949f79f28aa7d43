/* Write Weir handlers in C.
 *
 *     #include "weir.h"
 *
 *     weir_result weir_handle(const weir_event *event) {
 *       int64_t n = weir_cell_add("n", 1);
 *       weir_emitf(weir_textf("counts.%s", weir_subject_token(event->key)),
 *                  "{\"key\":%j,\"n\":%d}", event->key, n);
 *       return weir_ok();
 *     }
 *
 * Look-alikes:
 *   weir_bytes    bytes with a length; may be anything. Data of events and cells.
 *   const char *  a C string: names (cells, timers, headers, subjects) and formats.
 *   weir_buffer   bytes that grow while they are put together.
 *   weir_handler_… and handler_…  the generated bindings below this. Not for handlers.
 *
 * Memory: all that the library hands out (the event, what cells hold, formatted text) lives
 * until weir_handle returns, and is freed then. Nothing of it may be kept in a global
 * variable, and none of it may be given to free(). weir_alloc gives memory of the same kind.
 *
 * Whatever weir_bytes the library hands out has a NUL after its last byte, and data that is
 * not NULL, but for "there is none", which is {NULL, 0}.
 *
 * A host that refuses something (a subject outside [emit], a cell's name that is too long)
 * ends the invocation: such calls do not return, so there is no error to check. */
#ifndef WEIR_H
#define WEIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir_args.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Bytes and text ------------------------------------------------------ */

/* weir_bytes itself is in weir_args.h: {const char *data; size_t len}. */

/* The bytes of a C string, without its NUL; of NULL, none. Does not copy. */
weir_bytes weir_text(const char *text);

/* Bytes from anywhere, such as a struct. Does not copy. */
weir_bytes weir_slice(const void *data, size_t len);

bool weir_equal(weir_bytes a, weir_bytes b);

/* Whether the bytes are those of a C string. */
bool weir_is(weir_bytes bytes, const char *text);

/* Memory until weir_handle returns: zeroed, aligned for anything. Never NULL: where the limit
 * of memory is reached, the invocation ends. */
void *weir_alloc(size_t size);

/* ---- The handler --------------------------------------------------------- */

typedef struct weir_header {
  weir_bytes name;
  weir_bytes value;
} weir_header;

/* One JetStream message, or a timer that fired. */
typedef struct weir_event {
  /* Stable and unique: "<stream>:<sequence>". The same in every attempt. */
  weir_bytes id;
  weir_bytes stream;
  uint64_t sequence;
  weir_bytes subject;
  /* What the event belongs to, as [key] of handler.toml says. */
  weir_bytes key;
  /* Unix time in nanoseconds when the stream stored it. */
  uint64_t time;
  /* The timer's name where this is one that fired, else {NULL, 0}. */
  weir_bytes timer;
  const weir_header *headers;
  size_t headers_len;
  weir_bytes data;
} weir_event;

typedef enum weir_outcome { WEIR_OK, WEIR_RETRY, WEIR_REJECT } weir_outcome;

/* Made by weir_ok, weir_retry or weir_reject. */
typedef struct weir_result {
  weir_outcome outcome;
  weir_bytes reason;
} weir_result;

/* Yours. Called once per event. */
weir_result weir_handle(const weir_event *event);

/* Commits all that this invocation did. */
weir_result weir_ok(void);

/* weir_result weir_retry(format, …): nothing of this invocation counts; call again later, with
 * the host's backoff, and dead-letter the event once the attempts are used up. */
#define weir_retry(...) weir_fail_args(WEIR_RETRY, WEIR_ARGS(__VA_ARGS__))

/* weir_result weir_reject(format, …): nothing of this invocation counts; the event will never
 * work, dead-letter it. */
#define weir_reject(...) weir_fail_args(WEIR_REJECT, WEIR_ARGS(__VA_ARGS__))

/* noreturn weir_panic(format, …): for what must not happen. The text is the failure's reason,
 * with a backtrace; the host tries again as after a retry, in a new instance. */
#define weir_panic(...) weir_panic_args(WEIR_ARGS(__VA_ARGS__))

/* As libc's assert, which would need stdio; with a message in the dead letter. */
#define weir_assert(condition) \
  ((condition) ? (void)0 : weir_panic("%s:%d: this does not hold: %s", __FILE__, __LINE__, #condition))

/* The event's first header of that name, in any case. False where there is none, and then
 * *value is {NULL, 0}. */
bool weir_event_header(const weir_event *event, const char *name, weir_bytes *value);

/* Whether this event is the timer of that name. */
bool weir_event_is_timer(const weir_event *event, const char *name);

/* ---- Cells: what the handler remembers of the event's key ---------------- */

/* False where there is none, and then *value is {NULL, 0}. */
bool weir_cell_get(const char *cell, weir_bytes *value);
void weir_cell_set(const char *cell, weir_bytes value);
void weir_cell_delete(const char *cell);

/* Several cells in one call to the host; values[i] is {NULL, 0} where there is none. */
void weir_cell_get_many(const char *const *cells, size_t cells_len, weir_bytes *values);

/* Cells that all keys, handlers and hosts of the ledger share. What an event reads here still
 * holds when its effects are committed; if somebody else was faster, it is handled again. */
bool weir_shared_get(const char *cell, weir_bytes *value);
void weir_shared_set(const char *cell, weir_bytes value);
void weir_shared_delete(const char *cell);

/* Takes a lock for the event's key, or goes on holding it, for so many milliseconds. *token is
 * the fencing token, higher each time that the lock is taken. False where another holds it. */
bool weir_try_lock(const char *lock, uint64_t ttl_ms, uint64_t *token);

/* The same, but where another holds it, the event ends here with nothing done, and is handled
 * again once the lock is free; later events of its key wait, others do not. */
uint64_t weir_lock(const char *lock, uint64_t ttl_ms);

/* Gives a lock back, if the event's key holds it. */
void weir_unlock(const char *lock);

/* Names of the key's cells that begin with `prefix`, in byte order; *names is an array of as
 * many as returned. */
size_t weir_cell_names(const char *prefix, weir_bytes **names);

/* Cells that hold an integer in decimal, which `weir state get` shows and every other language
 * reads. One that holds something else is a panic. */
int64_t weir_cell_integer(const char *cell, int64_t otherwise);
void weir_cell_set_integer(const char *cell, int64_t value);
/* Adds, counting from 0 where there is no cell, and returns the sum; a panic where it overflows. */
int64_t weir_cell_add(const char *cell, int64_t difference);

/* Sets a cell to formatted text. */
#define weir_cell_setf(cell, ...) weir_cell_set((cell), weir_format_args(WEIR_ARGS(__VA_ARGS__)))

/* ---- Events that the handler emits --------------------------------------- */

/* Emits in the order of the calls, once the invocation is committed. `headers` may be NULL
 * where there are none. */
void weir_emit(const char *subject, const weir_header *headers, size_t headers_len, weir_bytes data);

/* void weir_emitf(subject, format, …): without headers, with formatted data. */
#define weir_emitf(subject, ...) weir_emit((subject), NULL, 0, weir_format_args(WEIR_ARGS(__VA_ARGS__)))

/* Any text as one token of a subject: bytes outside A-Z a-z 0-9 _ - become %XX. Text of no
 * length stays so, and no subject has an empty token. */
const char *weir_subject_token(weir_bytes text);

/* ---- Timers, of the event's key ------------------------------------------ */

#define WEIR_SECOND UINT64_C(1000000000) /* in nanoseconds, as `time` of an event */
#define WEIR_MINUTE (60 * WEIR_SECOND)
#define WEIR_HOUR (60 * WEIR_MINUTE)
#define WEIR_DAY (24 * WEIR_HOUR)

/* An event with this `timer` and this data comes at that time (Unix, nanoseconds). A timer of
 * that name is replaced. */
void weir_timer_set(const char *name, uint64_t at, weir_bytes data);
void weir_timer_cancel(const char *name);
/* When it is due; false where it is not set. */
bool weir_timer_due(const char *name, uint64_t *at);

/* ---- Configuration: the [config] table of handler.toml ------------------- */

bool weir_config(const char *name, weir_bytes *value);
/* `otherwise` where it is left out; a panic that names it where it is not such a number. */
int64_t weir_config_integer(const char *name, int64_t otherwise);
double weir_config_number(const char *name, double otherwise);

/* ---- Log ----------------------------------------------------------------- */

typedef enum weir_level { WEIR_TRACE, WEIR_DEBUG, WEIR_INFO, WEIR_WARN, WEIR_ERROR } weir_level;

/* void weir_log(level, format, …) */
#define weir_log(level, ...) weir_log_args((level), WEIR_ARGS(__VA_ARGS__))

/* ---- Formatting ---------------------------------------------------------- */

/* The formats are printf's, of which there are
 *
 *     %d %i %u %x   any integer, as the number that it is; lengths (ll, z, …) are
 *                   taken and mean nothing; a width, and zeros to fill it: %08x
 *     %s            a C string or weir_bytes; %.5s and %.*s cut it
 *     %j            the same as a JSON string, with its quotes; what is {NULL, 0}, as null
 *     %f %.3f       a double, with up to 9 digits (6 if it does not say); null
 *                   where it is no number or beyond 18 digits
 *     %c %%         a byte; a percent sign
 *
 * Each argument carries its type, so that one that does not fit its format, or is missing or
 * too much, is a panic that says so and not a read of something else.
 *
 *     weir_bytes   weir_format(format, …)
 *     const char * weir_textf(format, …)   a C string: for names and subjects
 *     void         weir_putf(buffer, format, …) */
#define weir_format(...) weir_format_args(WEIR_ARGS(__VA_ARGS__))
#define weir_textf(...) weir_textf_args(WEIR_ARGS(__VA_ARGS__))
#define weir_putf(buffer, ...) weir_put_args((buffer), WEIR_ARGS(__VA_ARGS__))

/* Grows by weir_put and weir_putf. Begins as {0}; its bytes are at `data`, NUL-terminated once
 * something was put. */
typedef struct weir_buffer {
  char *data;
  size_t len;
  size_t capacity;
} weir_buffer;

void weir_put(weir_buffer *buffer, weir_bytes bytes);
weir_bytes weir_buffer_bytes(const weir_buffer *buffer);

/* ---- Reading JSON -------------------------------------------------------- */

/* Each call reads the whole text and builds nothing: made for a few fields of an event. A
 * pointer is one of RFC 6901: "/a/0/b"; "" is the whole text. Where a name is there twice, the
 * last one counts. All are false, and leave their output alone, where the text as a whole is
 * not JSON, or has no such value. Nesting is read up to WEIR_JSON_DEPTH_MAX. */
#define WEIR_JSON_DEPTH_MAX 128

bool weir_json_valid(weir_bytes json);
/* The text of the value, as it stands: to look into further, or to pass on. */
bool weir_json_at(weir_bytes json, const char *pointer, weir_bytes *value);
/* A string, its escapes resolved. */
bool weir_json_string(weir_bytes json, const char *pointer, weir_bytes *value);
bool weir_json_number(weir_bytes json, const char *pointer, double *value);
/* A number without fraction and exponent that fits. */
bool weir_json_integer(weir_bytes json, const char *pointer, int64_t *value);
bool weir_json_bool(weir_bytes json, const char *pointer, bool *value);
/* How many elements an array or members an object has. */
bool weir_json_count(weir_bytes json, const char *pointer, size_t *count);

/* ---- What the macros above call ------------------------------------------ */

weir_bytes weir_format_args(const weir_arg *args, size_t args_len);
const char *weir_textf_args(const weir_arg *args, size_t args_len);
void weir_put_args(weir_buffer *buffer, const weir_arg *args, size_t args_len);
void weir_log_args(weir_level level, const weir_arg *args, size_t args_len);
weir_result weir_fail_args(weir_outcome outcome, const weir_arg *args, size_t args_len);
_Noreturn void weir_panic_args(const weir_arg *args, size_t args_len);

#ifdef __cplusplus
}
#endif

#endif
