# Builds a handler in C. A Makefile names it and includes this:
#
#     NAME = counter                      # the component is counter.wasm; handler.toml names it
#     WEIR_C_SDK ?= /path/to/guest-sdk/c
#     include $(WEIR_C_SDK)/weir.mk
#
# SOURCES    *.c of the folder, unless set
# WEIR_CC    a clang with a Wasm linker and wasi-libc: clang-19, else clang
# CFLAGS     added to ours
# STACK      bytes of stack (64 KiB); a handler that recurses deeply or has large arrays in functions needs more
#
# TESTS      tests/*.c, unless set: native programs, each linked with the handler and testing/weir_testing.c
# HOST_CC    the compiler of those (cc)
#
# make        the component
# make test   builds and runs the tests, with the address and undefined-behaviour sanitizers
# make clean

WEIR_CC ?= $(firstword $(foreach cc,clang-19 clang,$(shell command -v $(cc) 2>/dev/null)) clang)
SOURCES ?= $(wildcard *.c)
STACK ?= 65536
TESTS ?= $(wildcard tests/*.c)
HOST_CC ?= cc
SANITIZERS ?= -fsanitize=address,undefined -fno-sanitize-recover=all

WEIR_SOURCES := $(wildcard $(WEIR_C_SDK)/src/*.c) $(WEIR_C_SDK)/generated/handler.c
WEIR_OBJECTS := $(WEIR_C_SDK)/generated/handler_component_type.o
WEIR_HEADERS := $(wildcard $(WEIR_C_SDK)/*.h $(WEIR_C_SDK)/src/*.h $(WEIR_C_SDK)/generated/*.h) $(wildcard *.h)

# stack-first: a stack that overflows then leaves memory, which traps, and does not run into data.
# strip-debug and not strip-all: the names of functions stay, for the backtraces of traps.
WEIR_CFLAGS := --target=wasm32-wasi -mexec-model=reactor -mbulk-memory -O2 -Wall -Wextra -I$(WEIR_C_SDK)
WEIR_LDFLAGS = -Wl,--stack-first -Wl,-z,stack-size=$(STACK) -Wl,--strip-debug

.DELETE_ON_ERROR:
.PHONY: all test clean

all: $(NAME).wasm

# By rename: a host that watches the folder sees a whole file or none. In a folder
# of its own and not under another name, because the linker writes that name into the file, and backtraces show it.
$(NAME).wasm: $(SOURCES) $(WEIR_SOURCES) $(WEIR_OBJECTS) $(WEIR_HEADERS) $(WEIR_C_SDK)/weir.mk $(firstword $(MAKEFILE_LIST))
	mkdir -p .build
	$(WEIR_CC) $(WEIR_CFLAGS) $(CFLAGS) $(WEIR_LDFLAGS) -o .build/$@ $(SOURCES) $(WEIR_SOURCES) $(WEIR_OBJECTS)
	mv .build/$@ $@
	rmdir .build

# The generated code has attributes that only Wasm compilers know, hence -w for it.
WEIR_TEST_CFLAGS := -std=gnu17 -g -O1 $(SANITIZERS) -I$(WEIR_C_SDK)
test:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(HOST_CC) $(WEIR_TEST_CFLAGS) -w -c -o $$folder/generated.o $(WEIR_C_SDK)/generated/handler.c && \
	for test in $(TESTS); do \
	  $(HOST_CC) $(WEIR_TEST_CFLAGS) -Wall -Wextra -Werror $(CFLAGS) -o $$folder/test $$test $(SOURCES) \
	    $(wildcard $(WEIR_C_SDK)/src/*.c) $(WEIR_C_SDK)/testing/weir_testing.c $$folder/generated.o -lm && \
	  $$folder/test && echo "$$test: passed" || exit 1; \
	done

clean:
	rm -rf $(NAME).wasm .build
