# Rules for a handler in JavaScript or TypeScript, included by its Makefile,
# which says where this folder is: SDK.
#
#   make          the component that handler.toml names, if something changed
#   make test     the unit tests (*.test.js, *.test.ts), outside of Wasm
#   make clean
#
# TypeScript is checked by tsc first where there is a tsconfig.json. Variables
# from the environment or the command line: NODE, NPM, and JS_TOOLS, the folder
# with the node_modules of the pinned tools; the one in the SDK is filled at need.

NODE ?= node
NPM ?= npm
JS_TOOLS ?= $(SDK)/tools
ENTRY ?= $(firstword $(wildcard handler.ts handler.js))
COMPONENT ?= $(shell sed -n 's/^component *= *"\(.*\)".*/\1/p' handler.toml)
SOURCES ?= $(shell find . \( -name node_modules -o -name build -o -name sdk -o -name .weir \) -prune -o \! -name '*.test.*' \
  \( -name '*.js' -o -name '*.mjs' -o -name '*.ts' -o -name '*.json' \) -print)

SDK_FILES := $(wildcard $(SDK)/*.js $(SDK)/*.d.ts $(SDK)/*.mjs $(SDK)/build/*.mjs $(SDK)/src/*.js $(SDK)/src/host/*.js \
  $(SDK)/wit/*.wit $(SDK)/../../wit/world.wit $(SDK)/tools/package-lock.json)
TESTS := $(wildcard *.test.js)
TYPESCRIPT_TESTS := $(wildcard *.test.ts)

.PHONY: all test clean
.DELETE_ON_ERROR:

all: $(COMPONENT)

$(COMPONENT): $(SOURCES) $(SDK_FILES) Makefile | $(JS_TOOLS)/node_modules node_modules/weir-guest
ifneq ($(wildcard tsconfig.json),)
	$(NODE) $(JS_TOOLS)/node_modules/typescript/bin/tsc --noEmit --project .
endif
	$(NODE) $(SDK)/build.mjs $(ENTRY) --output $@ --tools $(JS_TOOLS)

test: | $(JS_TOOLS)/node_modules node_modules/weir-guest
ifneq ($(TYPESCRIPT_TESTS),)
	$(NODE) $(JS_TOOLS)/node_modules/esbuild/bin/esbuild $(TYPESCRIPT_TESTS) --bundle --platform=node --format=esm \
	  --sourcemap=inline --log-level=warning --out-extension:.js=.mjs --outdir=build/test
	$(NODE) --enable-source-maps --test $(TYPESCRIPT_TESTS:%.ts=build/test/%.mjs)
endif
ifneq ($(TESTS),)
	$(NODE) --test $(TESTS)
endif

# For editors, tsc and node: what `npm install` makes of package.json's
# "weir-guest": "file:…". The build itself does not look here.
node_modules/weir-guest:
	mkdir -p node_modules
	ln -sfn $(abspath $(SDK)) $@

# All of it or nothing, and without the packages' install scripts.
$(SDK)/tools/node_modules:
	rm -rf $@.new
	mkdir $@.new
	cp $(SDK)/tools/package.json $(SDK)/tools/package-lock.json $@.new
	$(NPM) ci --ignore-scripts --no-audit --no-fund --prefix $@.new
	mv $@.new/node_modules $@
	rm -rf $@.new

clean:
	rm -rf build $(COMPONENT)
