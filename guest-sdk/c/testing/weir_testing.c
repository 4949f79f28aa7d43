/* A host for native tests. See weir_testing.h.
 *
 * What is here, from the bottom: a table of named bytes (cells, timers, settings, each under
 * its key); the imports of the generated bindings, under the names that those declare; an
 * event written as the component model lays it out in memory, handed to the export. */

#include "weir_testing.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/internal.h"

/* ---- Tables ---- */

typedef struct entry {
  char *key;
  char *name;
  weir_bytes value;
  uint64_t at; /* of timers */
} entry;

typedef struct table {
  entry *entries;
  size_t len;
} table;

/* Of shared cells and locks, the key is empty; a lock's value is the key that holds it, and
 * `at` its last token. */
static table cells, timers, settings, shared, locks;
/* As they were before the invocation. */
static table cells_before, timers_before, shared_before, locks_before;

static weir_testing_emitted *emitted;
static size_t emitted_len;
static weir_bytes reason, last_log;
static char *current_key;
static uint64_t next_sequence = 1;
static jmp_buf trapped;

/* What longjmp says of an invocation that ended early. */
enum { TRAPPED = 1, WAITS = 2 };

static void *must(void *pointer) {
  if (pointer == NULL) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return pointer;
}

static weir_bytes copied(const void *data, size_t len) {
  char *copy = must(malloc(len + 1));
  if (len > 0) memcpy(copy, data, len);
  copy[len] = '\0';
  return (weir_bytes){copy, len};
}

static void drop(weir_bytes *bytes) {
  free((void *)bytes->data);
  *bytes = (weir_bytes){NULL, 0};
}

static entry *find(const table *table, const char *key, const char *name) {
  for (size_t i = 0; i < table->len; i++) {
    entry *entry = &table->entries[i];
    if (strcmp(entry->key, key) == 0 && strcmp(entry->name, name) == 0) return entry;
  }
  return NULL;
}

static void delete(table *table, const char *key, const char *name) {
  entry *entry = find(table, key, name);
  if (entry == NULL) return;
  free(entry->key);
  free(entry->name);
  drop(&entry->value);
  table->len--;
  size_t index = (size_t)(entry - table->entries);
  memmove(entry, entry + 1, (table->len - index) * sizeof *entry);
}

/* Kept sorted, as the host lists cells. */
static void set(table *table, const char *key, const char *name, weir_bytes value, uint64_t at) {
  delete(table, key, name);
  table->entries = must(realloc(table->entries, (table->len + 1) * sizeof *table->entries));
  size_t index = table->len++;
  for (; index > 0 && strcmp(table->entries[index - 1].name, name) > 0; index--) {
    table->entries[index] = table->entries[index - 1];
  }
  table->entries[index] = (entry){
      .key = (char *)copied(key, strlen(key)).data,
      .name = (char *)copied(name, strlen(name)).data,
      .value = copied(value.data, value.len),
      .at = at,
  };
}

static void clear(table *table) {
  while (table->len > 0) delete(table, table->entries[0].key, table->entries[0].name);
  free(table->entries);
  *table = (struct table){NULL, 0};
}

static table snapshot(const table *from) {
  table to = {NULL, 0};
  for (size_t i = 0; i < from->len; i++) {
    entry *entry = &from->entries[i];
    set(&to, entry->key, entry->name, entry->value, entry->at);
  }
  return to;
}

static void clear_emitted(void) {
  for (size_t i = 0; i < emitted_len; i++) {
    weir_testing_emitted *one = &emitted[i];
    drop(&one->subject);
    drop(&one->data);
    for (size_t j = 0; j < one->headers_len; j++) {
      weir_header header = one->headers[j];
      drop(&header.name);
      drop(&header.value);
    }
    free((void *)one->headers);
  }
  free(emitted);
  emitted = NULL;
  emitted_len = 0;
}

/* ---- The imports, as generated/handler.c declares them ---- */

void *cabi_realloc(void *pointer, size_t old_size, size_t align, size_t new_size);

/* Pointers and lengths in the layout of the component model. */
typedef struct slice {
  void *data;
  size_t len;
} slice;

/* As the host gives bytes: in memory that it asks the guest for. Where there are none it asks
 * too, and may not be relied upon to. */
static slice lowered(weir_bytes bytes) {
  slice slice = {cabi_realloc(NULL, 0, 1, bytes.len), bytes.len};
  if (bytes.len > 0) memcpy(slice.data, bytes.data, bytes.len);
  return slice;
}

/* A name, with a NUL; on return of the import it is let go of. */
static char *lifted(const uint8_t *data, size_t len) {
  return (char *)copied(data, len).data;
}

static void answer_option(const entry *entry, uint8_t *out) {
  out[0] = entry != NULL;
  if (entry == NULL) return;
  slice value = lowered(entry->value);
  memcpy(out + sizeof(void *), &value, sizeof value);
}

void __wasm_import_weir_handler_state_get(uint8_t *cell, size_t len, uint8_t *out);
void __wasm_import_weir_handler_state_get(uint8_t *cell, size_t len, uint8_t *out) {
  char *name = lifted(cell, len);
  answer_option(find(&cells, current_key, name), out);
  free(name);
}

void __wasm_import_weir_handler_state_set(uint8_t *cell, size_t len, uint8_t *data, size_t data_len);
void __wasm_import_weir_handler_state_set(uint8_t *cell, size_t len, uint8_t *data, size_t data_len) {
  char *name = lifted(cell, len);
  set(&cells, current_key, name, (weir_bytes){(char *)data, data_len}, 0);
  free(name);
}

void __wasm_import_weir_handler_state_delete(uint8_t *cell, size_t len);
void __wasm_import_weir_handler_state_delete(uint8_t *cell, size_t len) {
  char *name = lifted(cell, len);
  delete(&cells, current_key, name);
  free(name);
}

void __wasm_import_weir_handler_state_get_many(uint8_t *names, size_t len, uint8_t *out);
void __wasm_import_weir_handler_state_get_many(uint8_t *names, size_t len, uint8_t *out) {
  size_t option_bytes = 3 * sizeof(void *);
  slice answer = {cabi_realloc(NULL, 0, sizeof(void *), len * option_bytes), len};
  for (size_t i = 0; i < len; i++) {
    slice wanted;
    memcpy(&wanted, names + i * sizeof wanted, sizeof wanted);
    char *name = lifted(wanted.data, wanted.len);
    answer_option(find(&cells, current_key, name), (uint8_t *)answer.data + i * option_bytes);
    free(name);
  }
  memcpy(out, &answer, sizeof answer);
}

void __wasm_import_weir_handler_state_cells(uint8_t *prefix, size_t len, uint8_t *out);
void __wasm_import_weir_handler_state_cells(uint8_t *prefix, size_t len, uint8_t *out) {
  size_t count = 0;
  slice *found = must(malloc((cells.len + 1) * sizeof *found));
  for (size_t i = 0; i < cells.len; i++) {
    entry *entry = &cells.entries[i];
    if (strcmp(entry->key, current_key) != 0 || strncmp(entry->name, (char *)prefix, len) != 0) continue;
    found[count++] = lowered(weir_text(entry->name));
  }
  slice answer = lowered((weir_bytes){(char *)found, count * sizeof *found});
  answer.len = count;
  free(found);
  memcpy(out, &answer, sizeof answer);
}

void __wasm_import_weir_handler_output_emit(uint8_t *subject, size_t len, uint8_t *headers, size_t headers_len,
                                            uint8_t *data, size_t data_len);
void __wasm_import_weir_handler_output_emit(uint8_t *subject, size_t len, uint8_t *headers, size_t headers_len,
                                            uint8_t *data, size_t data_len) {
  emitted = must(realloc(emitted, (emitted_len + 1) * sizeof *emitted));
  weir_header *kept = must(malloc((headers_len + 1) * sizeof *kept));
  for (size_t i = 0; i < headers_len; i++) {
    slice pair[2];
    memcpy(pair, headers + i * sizeof pair, sizeof pair);
    kept[i] = (weir_header){copied(pair[0].data, pair[0].len), copied(pair[1].data, pair[1].len)};
  }
  emitted[emitted_len++] = (weir_testing_emitted){copied(subject, len), kept, headers_len, copied(data, data_len)};
}

void __wasm_import_weir_handler_timers_set(uint8_t *timer, size_t len, int64_t at, uint8_t *data, size_t data_len);
void __wasm_import_weir_handler_timers_set(uint8_t *timer, size_t len, int64_t at, uint8_t *data, size_t data_len) {
  char *name = lifted(timer, len);
  set(&timers, current_key, name, (weir_bytes){(char *)data, data_len}, (uint64_t)at);
  free(name);
}

void __wasm_import_weir_handler_timers_cancel(uint8_t *timer, size_t len);
void __wasm_import_weir_handler_timers_cancel(uint8_t *timer, size_t len) {
  char *name = lifted(timer, len);
  delete(&timers, current_key, name);
  free(name);
}

void __wasm_import_weir_handler_timers_due(uint8_t *timer, size_t len, uint8_t *out);
void __wasm_import_weir_handler_timers_due(uint8_t *timer, size_t len, uint8_t *out) {
  char *name = lifted(timer, len);
  entry *entry = find(&timers, current_key, name);
  out[0] = entry != NULL;
  if (entry != NULL) memcpy(out + 8, &entry->at, sizeof entry->at);
  free(name);
}

void __wasm_import_weir_handler_config_get(uint8_t *setting, size_t len, uint8_t *out);
void __wasm_import_weir_handler_config_get(uint8_t *setting, size_t len, uint8_t *out) {
  char *name = lifted(setting, len);
  answer_option(find(&settings, "", name), out);
  free(name);
}

void __wasm_import_weir_handler_shared_get(uint8_t *cell, size_t len, uint8_t *out);
void __wasm_import_weir_handler_shared_get(uint8_t *cell, size_t len, uint8_t *out) {
  char *name = lifted(cell, len);
  answer_option(find(&shared, "", name), out);
  free(name);
}

void __wasm_import_weir_handler_shared_set(uint8_t *cell, size_t len, uint8_t *data, size_t data_len);
void __wasm_import_weir_handler_shared_set(uint8_t *cell, size_t len, uint8_t *data, size_t data_len) {
  char *name = lifted(cell, len);
  set(&shared, "", name, (weir_bytes){(char *)data, data_len}, 0);
  free(name);
}

void __wasm_import_weir_handler_shared_delete(uint8_t *cell, size_t len);
void __wasm_import_weir_handler_shared_delete(uint8_t *cell, size_t len) {
  char *name = lifted(cell, len);
  delete(&shared, "", name);
  free(name);
}

/* The lock's token, if the current key holds it now; 0 where another does. */
static uint64_t take(const char *name) {
  entry *entry = find(&locks, "", name);
  uint64_t token = entry == NULL ? 0 : entry->at;
  if (entry != NULL && entry->value.len > 0) return weir_is(entry->value, current_key) ? token : 0;
  set(&locks, "", name, weir_text(current_key), token + 1);
  return token + 1;
}

void __wasm_import_weir_handler_shared_try_lock(uint8_t *lock, size_t len, int64_t ttl_ms, uint8_t *out);
void __wasm_import_weir_handler_shared_try_lock(uint8_t *lock, size_t len, int64_t ttl_ms, uint8_t *out) {
  (void)ttl_ms;
  char *name = lifted(lock, len);
  uint64_t token = take(name);
  free(name);
  out[0] = token != 0;
  memcpy(out + 8, &token, sizeof token);
}

int64_t __wasm_import_weir_handler_shared_lock(uint8_t *lock, size_t len, int64_t ttl_ms);
int64_t __wasm_import_weir_handler_shared_lock(uint8_t *lock, size_t len, int64_t ttl_ms) {
  (void)ttl_ms;
  char *name = lifted(lock, len);
  uint64_t token = take(name);
  if (token == 0) {
    reason = copied(name, len);
    free(name);
    longjmp(trapped, WAITS);
  }
  free(name);
  return (int64_t)token;
}

void __wasm_import_weir_handler_shared_unlock(uint8_t *lock, size_t len);
void __wasm_import_weir_handler_shared_unlock(uint8_t *lock, size_t len) {
  char *name = lifted(lock, len);
  entry *entry = find(&locks, "", name);
  if (entry != NULL && weir_is(entry->value, current_key)) set(&locks, "", name, weir_text(""), entry->at);
  free(name);
}

void __wasm_import_weir_handler_log_write(int32_t level, uint8_t *message, size_t len);
void __wasm_import_weir_handler_log_write(int32_t level, uint8_t *message, size_t len) {
  (void)level;
  drop(&last_log);
  last_log = copied(message, len);
}

/* Of the object file with the component's type, which is Wasm's. */
void __component_type_object_force_link_handler(void);
void __component_type_object_force_link_handler(void) {}

/* ---- The export ---- */

void weir_trap(void) {
  longjmp(trapped, TRAPPED);
}

uint8_t *__wasm_export_exports_handler_handle(uint8_t *event);
void __wasm_export_exports_handler_handle_post_return(uint8_t *returned);

/* types.event, where pointers may have 64 bits. */
typedef struct raw_event {
  slice id, stream;
  uint64_t sequence;
  slice subject, key;
  uint64_t time;
  struct {
    uint8_t is_some;
    slice value;
  } timer;
  slice headers, data;
} raw_event;

static weir_bytes or_else(weir_bytes given, const char *usual) {
  return given.data == NULL ? weir_text(usual) : given;
}

static raw_event *lower_event(const weir_event *event) {
  raw_event *raw = cabi_realloc(NULL, 0, 8, sizeof *raw);
  memset(raw, 0, sizeof *raw);
  raw->id = lowered(event->id);
  raw->stream = lowered(event->stream);
  raw->sequence = event->sequence;
  raw->subject = lowered(event->subject);
  raw->key = lowered(event->key);
  raw->time = event->time;
  raw->timer.is_some = event->timer.data != NULL;
  if (raw->timer.is_some) raw->timer.value = lowered(event->timer);
  raw->headers = (slice){cabi_realloc(NULL, 0, sizeof(void *), event->headers_len * 2 * sizeof(slice)), event->headers_len};
  for (size_t i = 0; i < event->headers_len; i++) {
    ((slice *)raw->headers.data)[2 * i] = lowered(event->headers[i].name);
    ((slice *)raw->headers.data)[2 * i + 1] = lowered(event->headers[i].value);
  }
  raw->data = lowered(event->data);
  return raw;
}

static weir_testing_outcome call(raw_event *raw) {
  raw_event *volatile lent = raw; /* the bindings free it; after a trap, we do */
  switch (setjmp(trapped)) {
  case 0: break;
  case WAITS:
    weir_arena_reset(); /* a host throws the whole instance away */
    free(lent);
    return (weir_testing_outcome){WEIR_TESTING_WAITS, reason};
  default:
    weir_arena_reset();
    free(lent);
    reason = copied(last_log.data, last_log.len);
    return (weir_testing_outcome){WEIR_TESTING_TRAP, reason};
  }
  uint8_t *returned = __wasm_export_exports_handler_handle((uint8_t *)raw);
  weir_testing_outcome outcome = {WEIR_TESTING_OK, {NULL, 0}};
  if (returned[0] == 1) {
    slice said;
    memcpy(&said, returned + 2 * sizeof(void *), sizeof said);
    reason = copied(said.data, said.len);
    outcome.kind = returned[sizeof(void *)] == 0 ? WEIR_TESTING_RETRY : WEIR_TESTING_REJECT;
    outcome.reason = reason;
  }
  __wasm_export_exports_handler_handle_post_return(returned);
  return outcome;
}

static void swap(table *one, table *other) {
  table kept = *one;
  *one = *other;
  *other = kept;
}

weir_testing_outcome weir_testing_deliver(weir_event event) {
  char id[32];
  clear_emitted();
  drop(&reason);
  drop(&last_log);
  if (event.sequence == 0) event.sequence = next_sequence;
  next_sequence = event.sequence + 1;
  snprintf(id, sizeof id, "TEST:%llu", (unsigned long long)event.sequence);
  event.id = or_else(event.id, id);
  event.stream = or_else(event.stream, "TEST");
  event.subject = or_else(event.subject, "test");
  event.key = or_else(event.key, "key");
  event.data = or_else(event.data, "");
  current_key = lifted((const uint8_t *)event.key.data, event.key.len);
  /* A timer that fires is no longer set. */
  if (event.timer.data != NULL) delete(&timers, current_key, event.timer.data);
  cells_before = snapshot(&cells);
  timers_before = snapshot(&timers);
  shared_before = snapshot(&shared);
  locks_before = snapshot(&locks);
  weir_testing_outcome outcome = call(lower_event(&event));
  if (outcome.kind != WEIR_TESTING_OK) {
    swap(&cells, &cells_before);
    swap(&timers, &timers_before);
    swap(&shared, &shared_before);
    swap(&locks, &locks_before);
    clear_emitted();
  }
  clear(&cells_before);
  clear(&timers_before);
  clear(&shared_before);
  clear(&locks_before);
  free(current_key);
  current_key = NULL;
  return outcome;
}

/* ---- What tests ask ---- */

void weir_testing_reset(void) {
  clear(&cells);
  clear(&timers);
  clear(&settings);
  clear(&shared);
  clear(&locks);
  clear_emitted();
  drop(&reason);
  drop(&last_log);
  next_sequence = 1;
}

void weir_testing_config(const char *name, const char *value) {
  set(&settings, "", name, weir_text(value), 0);
}

size_t weir_testing_emitted_len(void) {
  return emitted_len;
}

weir_testing_emitted weir_testing_emitted_at(size_t index) {
  weir_check(index < emitted_len);
  return emitted[index];
}

weir_bytes weir_testing_cell(const char *key, const char *cell) {
  entry *entry = find(&cells, key, cell);
  return entry == NULL ? (weir_bytes){NULL, 0} : entry->value;
}

void weir_testing_set_cell(const char *key, const char *cell, weir_bytes value) {
  set(&cells, key, cell, value, 0);
}

weir_bytes weir_testing_shared(const char *cell) {
  entry *entry = find(&shared, "", cell);
  return entry == NULL ? (weir_bytes){NULL, 0} : entry->value;
}

void weir_testing_set_shared(const char *cell, weir_bytes value) {
  set(&shared, "", cell, value, 0);
}

weir_bytes weir_testing_lock_holder(const char *lock) {
  entry *entry = find(&locks, "", lock);
  return entry == NULL || entry->value.len == 0 ? (weir_bytes){NULL, 0} : entry->value;
}

uint64_t weir_testing_timer(const char *key, const char *name) {
  entry *entry = find(&timers, key, name);
  return entry == NULL ? 0 : entry->at;
}

weir_bytes weir_testing_log(void) {
  return last_log;
}

void weir_testing_failed(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, condition);
  exit(1);
}

void weir_testing_check_text(const char *file, int line, weir_bytes bytes, const char *text) {
  if (weir_is(bytes, text)) return;
  fprintf(stderr, "%s:%d: got      %.*s\n", file, line, bytes.data == NULL ? 6 : (int)bytes.len,
          bytes.data == NULL ? "(none)" : bytes.data);
  fprintf(stderr, "%*s expected %s\n", (int)strlen(file) + 4, "", text);
  exit(1);
}
