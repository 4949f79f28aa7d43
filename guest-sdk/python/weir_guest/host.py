"""The calls into the host: its imports in Wasm, `weir_guest.testing` elsewhere.

The other modules say ``host.get(…)``, so that a test can put its own functions
into this module.
"""

import sys
from typing import Any, Callable, Optional

#: Whether this is a component, or about to become one.
IN_WASM = sys.platform == "wasi"

#: Names of the functions that a test provides.
CALLS = (
    "get",
    "set",
    "delete",
    "get_many",
    "names",
    "emit",
    "set_timer",
    "cancel_timer",
    "timer_due",
    "shared_get",
    "shared_set",
    "shared_delete",
    "try_lock",
    "lock",
    "unlock",
    "config",
    "log",
)

get: Callable[[str], Optional[bytes]]
set: Callable[[str, bytes], None]
delete: Callable[[str], None]
get_many: Callable[[list[str]], list[Optional[bytes]]]
names: Callable[[str], list[str]]
emit: Callable[[str, list[Any], bytes], None]
set_timer: Callable[[str, int, bytes], None]
cancel_timer: Callable[[str], None]
timer_due: Callable[[str], Optional[int]]
shared_get: Callable[[str], Optional[bytes]]
shared_set: Callable[[str, bytes], None]
shared_delete: Callable[[str], None]
try_lock: Callable[[str, int], Optional[int]]
lock: Callable[[str, int], int]
unlock: Callable[[str], None]
config: Callable[[str], Optional[str]]
log: Callable[[int, str], None]
header: Callable[[str, str], Any]

#: Levels of the host's log, least first.
TRACE, DEBUG, INFO, WARN, ERROR = range(5)

if IN_WASM:
    from wit_world.imports import config as _config
    from wit_world.imports import log as _log
    from wit_world.imports import output as _output
    from wit_world.imports import shared as _shared
    from wit_world.imports import state as _state
    from wit_world.imports import timers as _timers
    from wit_world.imports.types import Header as header

    get = _state.get
    set = _state.set
    delete = _state.delete
    get_many = _state.get_many
    names = _state.cells
    emit = _output.emit
    set_timer = _timers.set
    cancel_timer = _timers.cancel
    timer_due = _timers.due
    shared_get = _shared.get
    shared_set = _shared.set
    shared_delete = _shared.delete
    try_lock = _shared.try_lock
    lock = _shared.lock
    unlock = _shared.unlock
    config = _config.get
    _LEVELS = list(_log.Level)

    def log(level: int, message: str) -> None:
        _log.write(_LEVELS[level], message)

else:
    from collections import namedtuple

    header = namedtuple("header", ("name", "value"))

    def _outside(*_: Any) -> Any:
        raise RuntimeError("outside of Wasm, a handler runs in weir_guest.testing.Host().deliver(…)")

    def put(calls: Optional[dict[str, Callable[..., Any]]]) -> None:
        """Puts a test's functions here, or takes them away."""
        for name in CALLS:
            globals()[name] = _outside if calls is None else calls[name]

    put(None)

#: Time of the event being handled, for `timers.after`.
now: int = 0
