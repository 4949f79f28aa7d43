/* Memory until weir_handle returns.
 *
 *   1. It is taken from the front of a block; each piece is aligned for anything.
 *   2. Where the block is full, a further one is made: larger than a piece that
 *      would not fit, else of the usual size.
 *   3. weir_arena_reset frees all blocks but the first, which is kept, so
 *      that most events allocate nothing, and an instance that has handled a million is as small as after one.
 *
 * What the host hands over comes from malloc (cabi_realloc, in handler.c). Such blocks are
 * adopted: kept in a list and freed at the same moment. */

#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Bytes of a usual block. An event of a few hundred bytes needs a few thousand; it and the
 * stack are most of what an idle instance takes. */
#define BLOCK_BYTES 16384

/* Adopted pointers that fit without a list of their own being made longer. */
#define ADOPTED_AT_FIRST 16

#define ALIGNMENT _Alignof(max_align_t)

typedef struct block {
  struct block *next;
  size_t capacity;
  size_t used;
  _Alignas(max_align_t) char bytes[];
} block;

/* Newest first; the kept one is the last. */
static block *blocks;

static void **adopted;
static size_t adopted_len;
static size_t adopted_capacity;

static _Noreturn void out_of_memory(void) {
  weir_stop(weir_text("out of memory"));
}

static size_t rounded(size_t size) {
  if (size > SIZE_MAX - sizeof(block) - ALIGNMENT) out_of_memory();
  return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void *weir_arena_take(size_t size) {
  size = rounded(size);
  if (blocks == NULL || blocks->capacity - blocks->used < size) {
    size_t capacity = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    block *fresh = malloc(sizeof(block) + capacity);
    if (fresh == NULL) out_of_memory();
    fresh->next = blocks;
    fresh->capacity = capacity;
    fresh->used = 0;
    blocks = fresh;
  }
  void *taken = blocks->bytes + blocks->used;
  blocks->used += size;
  return taken;
}

void *weir_arena_grow(void *old, size_t old_size, size_t new_size) {
  size_t had = rounded(old_size), wanted = rounded(new_size);
  bool is_last = old != NULL && blocks != NULL && (char *)old + had == blocks->bytes + blocks->used;
  if (is_last && blocks->capacity - blocks->used >= wanted - had) {
    blocks->used += wanted - had;
    return old;
  }
  void *moved = weir_arena_take(new_size);
  if (old_size > 0) memcpy(moved, old, old_size);
  return moved;
}

void weir_arena_adopt(void *pointer) {
  if (adopted_len == adopted_capacity) {
    size_t capacity = adopted_capacity == 0 ? ADOPTED_AT_FIRST : 2 * adopted_capacity;
    void **longer = realloc(adopted, capacity * sizeof *adopted);
    if (longer == NULL) out_of_memory();
    adopted = longer;
    adopted_capacity = capacity;
  }
  adopted[adopted_len++] = pointer;
}

void weir_arena_reset(void) {
  for (size_t i = 0; i < adopted_len; i++) free(adopted[i]);
  adopted_len = 0;
  if (adopted_capacity > ADOPTED_AT_FIRST) {
    free(adopted);
    adopted = NULL;
    adopted_capacity = 0;
  }
  while (blocks != NULL && (blocks->next != NULL || blocks->capacity > BLOCK_BYTES)) {
    block *next = blocks->next;
    free(blocks);
    blocks = next;
  }
  if (blocks != NULL) blocks->used = 0;
}

void *weir_alloc(size_t size) {
  return memset(weir_arena_take(size), 0, size);
}
