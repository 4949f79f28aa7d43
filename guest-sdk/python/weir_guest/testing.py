"""Runs a handler in an ordinary Python, without Wasm and without NATS.

`Host` keeps cells, timers and locks between deliveries, as the runtime does: effects are
kept as a whole or not at all::

    import unittest
    from weir_guest.testing import Host, event
    from counts import count

    class Counts(unittest.TestCase):
        def test_counts_up(self):
            host = Host()
            effects = host.deliver(count, event("orders.new", key="a", data={"amount": 1}))
            self.assertEqual(effects.emitted[0].json(), {"key": "a", "n": 1})
            self.assertEqual(host.cell("a", "n"), b"1")

A failure is the exception itself: `Retry`, `Reject`, or whatever the handler
raised. One that waits for a lock raises `Waits`. The limits and the emit allowlist of ``handler.toml`` are not enforced
here; ``weir test`` does that.
"""

import json
import logging
import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Callable, Iterable, Mapping, Optional, Union

from . import host as _host
from . import timers as _timers
from .encoding import Payload, to_bytes
from .event import Event
from .failure import Retry
from .log import HostHandler

#: Levels of the log, as `Effects.log` names them.
LEVELS = ("trace", "debug", "info", "warn", "error")


@dataclass(frozen=True)
class Emitted:
    """An event that the handler emitted."""

    subject: str
    data: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)

    def json(self) -> Any:
        """The payload read as JSON."""
        return json.loads(self.data)


@dataclass(frozen=True)
class Timer:
    """A timer of a key: due at that Unix time in nanoseconds."""

    name: str
    at: int
    data: bytes


@dataclass(frozen=True)
class Effects:
    """What one invocation did."""

    emitted: list[Emitted] = field(default_factory=list)
    #: Cells that were written, or deleted where the value is None.
    cells: dict[str, Optional[bytes]] = field(default_factory=dict)
    #: Timers that were set, or cancelled where the value is None.
    timers: dict[str, Optional[Timer]] = field(default_factory=dict)
    #: Shared cells that were written, or deleted where the value is None.
    shared: dict[str, Optional[bytes]] = field(default_factory=dict)
    #: Lines as (level, text).
    log: list[tuple[str, str]] = field(default_factory=list)


class Waits(Retry):
    """The handler called `shared.lock` for a lock that another key holds. On a real host
    the event is handled again once the lock is free."""

    def __init__(self, lock: str):
        super().__init__(f'waits for lock "{lock}"')
        self.lock = lock


class _Ended(BaseException):
    """Ends an invocation that waits. No `Exception`: handlers catch those."""


def event(
    subject: str,
    *,
    key: Optional[str] = None,
    data: Payload = b"",
    headers: Union[Mapping[str, str], Iterable[tuple[str, str]]] = (),
    time: Union[int, datetime] = 0,
    timer: Optional[str] = None,
    stream: str = "TEST",
    sequence: int = 0,
) -> Event:
    """An event to deliver. Its key is its subject unless another is given; `data`
    is what `emit` takes; without a sequence it is numbered when it is delivered."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Event(
        id=f"{stream}:{sequence}",
        stream=stream,
        sequence=sequence,
        subject=subject,
        key=subject if key is None else key,
        time=_timers._nanoseconds(time),
        timer=timer,
        headers=[_host.header(name, value) for name, value in pairs],
        data=to_bytes(data),
    )


class Host:
    """The state of one handler, and its configuration."""

    def __init__(self, config: Optional[Mapping[str, str]] = None):
        self.config = dict(config or {})
        #: Cells by key.
        self.cells: dict[str, dict[str, bytes]] = {}
        #: Live timers by key.
        self.timers: dict[str, dict[str, Timer]] = {}
        #: Shared cells; write to it what another handler would have written.
        self.shared: dict[str, bytes] = {}
        self._locks: dict[str, _Lock] = {}
        self._delivered = 0

    def cell(self, key: str, name: str) -> Optional[bytes]:
        """A cell as the last successful invocation of that key left it."""
        return self.cells.get(key, {}).get(name)

    def lock_holder(self, name: str) -> Optional[str]:
        """The key that holds a lock. Locks do not expire here; `break_lock` ends one."""
        return self._locks.get(name, _FREE).holder

    def break_lock(self, name: str) -> None:
        """Takes a lock away from whoever holds it, as its expiry does."""
        if name in self._locks:
            self._locks[name] = self._locks[name].freed()

    def deliver(self, handler: Callable[[Event], Any], event: Event) -> Effects:
        """Calls the handler, and keeps what it did unless it raises."""
        self._delivered += 1
        if event.sequence == 0:
            event.sequence = self._delivered
            event.id = f"{event.stream}:{event.sequence}"
        live = dict(self.timers.get(event.key, {}))
        if event.timer is not None:
            live.pop(event.timer, None)
        call = _Call(event.key, dict(self.cells.get(event.key, {})), live, self)
        # As in the runtime: random numbers follow from the event.
        before = random.getstate()
        random.seed(event.id)
        _host.now = event.time
        logger = logging.getLogger()
        level, to_host = logger.level, HostHandler()
        logger.addHandler(to_host)
        logger.setLevel(logging.INFO)
        _host.put({name: getattr(call, name) for name in _host.CALLS})
        try:
            handler(event)
        except _Ended:
            pass
        finally:
            _host.put(None)
            logger.setLevel(level)
            logger.removeHandler(to_host)
            random.setstate(before)
        # Whatever the handler made of it: on a real host there is nothing to catch.
        if call.waits is not None:
            raise Waits(call.waits)
        self.cells[event.key] = call.cells
        self.timers[event.key] = call.timers
        self.shared = call.shared
        self._locks = call.locks
        return call.effects

    def fire(self, handler: Callable[[Event], Any], key: str, name: str) -> Effects:
        """Delivers the event of a live timer. Raises `KeyError` if there is none."""
        timer = self.timers.get(key, {})[name]
        return self.deliver(
            handler,
            event(f"timer.{name}", key=key, timer=name, time=timer.at, data=timer.data),
        )


@dataclass(frozen=True)
class _Lock:
    """The key that holds a lock, if any does, and its last token."""

    holder: Optional[str]
    token: int

    def freed(self) -> "_Lock":
        return _Lock(None, self.token)


_FREE = _Lock(None, 0)


class _Call:
    """What the handler that runs sees and has done."""

    def __init__(self, key: str, cells: dict[str, bytes], timers: dict[str, Timer], of: Host):
        self.key = key
        self.cells = cells
        self.timers = timers
        self.shared = dict(of.shared)
        self.locks = dict(of._locks)
        self.settings = of.config
        self.effects = Effects()
        #: The lock that ended the invocation.
        self.waits: Optional[str] = None

    def get(self, cell: str) -> Optional[bytes]:
        return self.cells.get(cell)

    def get_many(self, cells: list[str]) -> list[Optional[bytes]]:
        return [self.cells.get(cell) for cell in cells]

    def set(self, cell: str, value: bytes) -> None:
        self.cells[cell] = self.effects.cells[cell] = value

    def delete(self, cell: str) -> None:
        if self.cells.pop(cell, None) is not None:
            self.effects.cells[cell] = None

    def names(self, prefix: str) -> list[str]:
        return sorted((name for name in self.cells if name.startswith(prefix)), key=str.encode)

    def emit(self, subject: str, headers: list[Any], data: bytes) -> None:
        pairs = [(header.name, header.value) for header in headers]
        self.effects.emitted.append(Emitted(subject, data, pairs))

    def set_timer(self, name: str, at: int, data: bytes) -> None:
        self.timers[name] = self.effects.timers[name] = Timer(name, at, data)

    def cancel_timer(self, name: str) -> None:
        if self.timers.pop(name, None) is not None:
            self.effects.timers[name] = None

    def timer_due(self, name: str) -> Optional[int]:
        timer = self.timers.get(name)
        return timer and timer.at

    def shared_get(self, name: str) -> Optional[bytes]:
        return self.shared.get(name)

    def shared_set(self, name: str, value: bytes) -> None:
        self.shared[name] = self.effects.shared[name] = value

    def shared_delete(self, name: str) -> None:
        if self.shared.pop(name, None) is not None:
            self.effects.shared[name] = None

    def try_lock(self, name: str, ttl_ms: int) -> Optional[int]:
        lock = self.locks.get(name, _FREE)
        if lock.holder is None:
            lock = self.locks[name] = _Lock(self.key, lock.token + 1)
        return lock.token if lock.holder == self.key else None

    def lock(self, name: str, ttl_ms: int) -> int:
        token = self.try_lock(name, ttl_ms)
        if token is None:
            self.waits = name
            raise _Ended
        return token

    def unlock(self, name: str) -> None:
        lock = self.locks.get(name, _FREE)
        if lock.holder == self.key:
            self.locks[name] = lock.freed()

    def config(self, name: str) -> Optional[str]:
        return self.settings.get(name)

    def log(self, level: int, message: str) -> None:
        self.effects.log.append((LEVELS[level], message))
