# Rules for a handler in Go, included by its Makefile, which says what it is called
# (NAME) and where this folder is (SDK).
#
#   make          NAME.wasm beside handler.toml; needs Go 1.27 or later (GO), and no network
#   make test     go vet and go test, on this machine and without Wasm
#   make clean

GO ?= go
# The SDK depends on nothing; with modules of others, GOPROXY says where they come from.
export GOPROXY ?= off
export GOTOOLCHAIN = local
export GOWORK = off

all: $(NAME).wasm

# A handler is a reactor (c-shared): it is called, and does not run by itself.
# The section says which world the module is for; `go build` cannot add it.
$(NAME).wasm: $(wildcard *.go go.mod) Makefile $(SDK)/handler.mk $(shell find $(SDK) -name '*.go' -o -name '*.section')
	GOOS=wasip1 GOARCH=wasm $(GO) build -buildmode=c-shared -trimpath -ldflags='-s -w' -o $@.module .
	cat $@.module $(SDK)/generated/component-type.section > $@.new
	rm $@.module
	mv $@.new $@

test:
	$(GO) vet .
	$(GO) test .

clean:
	rm -f $(NAME).wasm $(NAME).wasm.module $(NAME).wasm.new

.PHONY: all test clean
