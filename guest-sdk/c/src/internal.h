/* What the files of the library share. Not for handlers.
 *
 *   handler.c  the export, and every call of the host: the only file that sees the generated bindings
 *   arena.c    memory until weir_handle returns
 *   format.c   weir_format and what is built on it
 *   json.c     reading JSON
 *   text.c     bytes, subject tokens, UTF-8, decimal integers */
#ifndef WEIR_INTERNAL_H
#define WEIR_INTERNAL_H

#include "weir.h"

/* ---- arena.c ---- */

/* Frees all that was allocated since, and what was handed to weir_arena_adopt. */
void weir_arena_reset(void);
/* Takes over memory of malloc: it is freed with the arena. */
void weir_arena_adopt(void *block);
/* As weir_alloc, but not zeroed. */
void *weir_arena_take(size_t size);
/* Makes the last thing taken larger in place where it can, else moves it. */
void *weir_arena_grow(void *block, size_t old_size, size_t new_size);

/* ---- text.c ---- */

/* The text with U+FFFD for each byte that is not UTF-8: the host refuses other text. */
weir_bytes weir_utf8(weir_bytes text);
/* Bytes of the character that begins at `at`; 0 where they are not UTF-8. */
size_t weir_utf8_character(weir_bytes text, size_t at);
#define WEIR_REPLACEMENT "\xEF\xBF\xBD"
/* Reads 0, 17 or -17: no sign but a minus, no leading zeros, nothing around it. */
bool weir_read_integer(weir_bytes text, int64_t *value);

/* ---- json.c ---- */

/* Whether the text is a number as JSON writes them, and that number. */
bool weir_read_number(weir_bytes text, double *value);

/* ---- handler.c ---- */

/* Logs it as an error, which makes it the reason of the failure, and stops. Needs no memory. */
_Noreturn void weir_stop(weir_bytes message);

/* Ends the guest. On Wasm it is an instruction; natively the testing host has it. */
#ifdef __wasm__
#define weir_trap() __builtin_trap()
#else
_Noreturn void weir_trap(void);
#endif

#endif
