/* Unit tests of handlers, natively: with any C compiler, a debugger, sanitizers.
 *
 *     static void counts(void) {
 *       weir_testing_reset();
 *       weir_testing_outcome outcome = weir_testing_deliver((weir_event){.key = weir_text("k"), .data = weir_text("{}")});
 *       weir_check(outcome.kind == WEIR_TESTING_OK);
 *       weir_check(weir_is(weir_testing_cell("k", "count"), "1"));
 *     }
 *
 * weir_testing.c stands in for the host: it implements what the generated bindings import, and
 * calls what they export, by the same rules of ownership. So an address sanitizer sees leaks
 * and stray pointers of the handler and of the SDK alike.
 *
 * As in the host, all that a failed invocation did is undone. Not checked: allowlists, limits,
 * names. `weir test`, which runs the component itself, has all of that. */
#ifndef WEIR_TESTING_H
#define WEIR_TESTING_H

#include "weir.h"

typedef enum weir_testing_kind {
  WEIR_TESTING_OK,
  WEIR_TESTING_RETRY,
  WEIR_TESTING_REJECT,
  WEIR_TESTING_TRAP, /* weir_panic */
  WEIR_TESTING_WAITS /* weir_lock, of a lock that another key holds; it is the reason */
} weir_testing_kind;

/* Texts and bytes of this header live until the next delivery or reset. */
typedef struct weir_testing_outcome {
  weir_testing_kind kind;
  weir_bytes reason; /* of a trap, the message */
} weir_testing_outcome;

typedef struct weir_testing_emitted {
  weir_bytes subject;
  const weir_header *headers;
  size_t headers_len;
  weir_bytes data;
} weir_testing_emitted;

/* Forgets all cells, timers and settings. */
void weir_testing_reset(void);

/* An entry of [config]. */
void weir_testing_config(const char *name, const char *value);

/* Calls the handler. Fields that are left out get something: sequence 1 and up, an id of it,
 * subject "test", key "key". */
weir_testing_outcome weir_testing_deliver(weir_event event);

/* What the last delivery emitted; nothing where it failed. */
size_t weir_testing_emitted_len(void);
weir_testing_emitted weir_testing_emitted_at(size_t index);

/* {NULL, 0} where there is none. */
weir_bytes weir_testing_cell(const char *key, const char *cell);
void weir_testing_set_cell(const char *key, const char *cell, weir_bytes value);

/* Shared cells, as other handlers see them. */
weir_bytes weir_testing_shared(const char *cell);
void weir_testing_set_shared(const char *cell, weir_bytes value);

/* The key that holds a lock; {NULL, 0} where none does. Locks do not expire here. */
weir_bytes weir_testing_lock_holder(const char *lock);

/* When the timer is due; 0 where it is not set. */
uint64_t weir_testing_timer(const char *key, const char *name);

/* The line that was logged last, of any level. */
weir_bytes weir_testing_log(void);

/* Ends the program with a message and exit code 1 where it does not hold. */
#define weir_check(condition) \
  ((condition) ? (void)0 : weir_testing_failed(__FILE__, __LINE__, #condition))
_Noreturn void weir_testing_failed(const char *file, int line, const char *condition);

/* As weir_check, for bytes: shows both. */
#define weir_check_text(bytes, text) weir_testing_check_text(__FILE__, __LINE__, (bytes), (text))
void weir_testing_check_text(const char *file, int line, weir_bytes bytes, const char *text);

#endif
