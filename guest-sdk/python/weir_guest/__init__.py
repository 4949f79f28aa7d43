"""Write Weir handlers in Python.

A handler is one function. It is called with one event at a time, in the order
of that event's key; whatever it does is committed as a whole when it returns,
and not at all when it raises::

    from weir_guest import cell, emit, handler, subject_token

    @handler
    def count(event):
        n = cell("n", int, default=0).update(lambda n: n + 1)
        emit(f"counts.{subject_token(event.key)}", {"key": event.key, "n": n})

====================================  =========================================
for                                   there is
====================================  =========================================
what happened                         `Event`: subject, key, time, `json()`
remembering                           `cells`, and `cell` for typed ones
what keys share                       `shared`: cells and locks of all keys
telling others                        `emit`
doing it later                        `timers`: durable, per key
event sourcing                        `aggregate`: commands and events
settings                              `config`: `[config]` of ``handler.toml``
telling the operator                  `log`, or `logging` and `print` as ever
failing                               `Retry` and `Reject`
unit tests, without Wasm or NATS      `weir_guest.testing`
building the component                ``python3 -m weir_guest.build``
====================================  =========================================

A handler sees its event, its cells and its configuration, and nothing else: no
files, no network, no clock but the event's. The same input gives the same
effects, which is what makes it safe to run an event again after a crash. Keep it
so: what must survive belongs in a cell, never in a global variable.
"""

from . import aggregate, shared, timers
from .config import config
from .event import Event
from .failure import BadPayload, CellError, Reject, Retry
from .entry import handler
from .log import log
from .output import emit
from .state import Cell, cell, cells
from .subject import from_subject_token, subject_token

__all__ = [
    "BadPayload",
    "Cell",
    "CellError",
    "Event",
    "Reject",
    "Retry",
    "aggregate",
    "cell",
    "cells",
    "config",
    "emit",
    "from_subject_token",
    "handler",
    "log",
    "shared",
    "subject_token",
    "timers",
]
