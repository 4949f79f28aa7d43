"""Cells and locks that all keys, handlers and hosts of the ledger share.

What an event reads here still holds when its effects are committed; if somebody
else was faster, nothing of it counts, and it is handled again. So a read, a
decision and a write are one step, whatever others do meanwhile::

    taken = shared.cell("seats", int, default=0)
    if taken.value < 10:
        taken.value += 1
        emit("bookings.made", event.key)

A lock is held by the event's key, from one event to a later one, until it is given
back, or its time is over and somebody else takes it. Its token rises from holder
to holder: hand it to whatever is to be protected, so that it can refuse older ones.
What an event does after it took a lock is committed only if the lock is still held::

    if event.subject == "parcels.delivered":
        shared.unlock("van-1")
    else:
        # Waits until the van is free, without holding up other keys.
        emit("vans.load", shared.lock("van-1", timedelta(hours=1)))
"""

from datetime import timedelta
from typing import Optional, TypeVar, Union

from . import host, state

T = TypeVar("T")

#: How long a lock is held at the most; a number is seconds.
Ttl = Union[int, float, timedelta]

_KIND = "shared cell"
_MILLISECOND = timedelta(milliseconds=1)


def get(name: str) -> Optional[bytes]:
    """The bytes of a shared cell, or None."""
    return host.shared_get(name)


def set(name: str, value: Union[bytes, bytearray, memoryview]) -> None:
    """Writes the bytes of a shared cell."""
    host.shared_set(name, state.as_bytes(_KIND, name, value))


def delete(name: str) -> None:
    """Removes a shared cell, if there is one."""
    host.shared_delete(name)


class Cell(state.Cell[T]):
    """A typed view of one shared cell, with all that `weir_guest.Cell` has."""

    __slots__ = ()

    _kind = _KIND

    def _read(self) -> Optional[bytes]:
        return host.shared_get(self.name)

    def _write(self, value: bytes) -> None:
        host.shared_set(self.name, value)

    def delete(self) -> None:
        """Removes the cell, if there is one."""
        host.shared_delete(self.name)


def cell(name: str, type: type[T], default: Optional[T] = None) -> Cell[T]:
    """A typed view of a shared cell, of the types that `weir_guest.cell` has, and
    with the same bytes."""
    return Cell(name, type, default)


def try_lock(name: str, ttl: Ttl) -> Optional[int]:
    """Takes the lock for the event's key, or goes on holding it, until `ttl` from now:
    its fencing token. None where another key or handler holds it.

    A `ttl` below 100 ms is 100 ms; one above seven days is seven days.
    """
    return host.try_lock(name, _milliseconds(name, ttl))


def lock(name: str, ttl: Ttl) -> int:
    """The same, but where another holds the lock, this invocation ends here with
    nothing done, and the event is handled again once the lock is free. The key's later
    events wait behind it; other keys do not.

    In a unit test, `weir_guest.testing.Host.deliver` then raises `Waits`.
    """
    return host.lock(name, _milliseconds(name, ttl))


def unlock(name: str) -> None:
    """Gives the lock back, if the event's key holds it."""
    host.unlock(name)


def _milliseconds(name: str, ttl: Ttl) -> int:
    if not isinstance(ttl, timedelta):
        ttl = timedelta(seconds=ttl)
    if ttl < timedelta():
        raise ValueError(f"lock {name!r} is held for zero seconds or more, not for {ttl.total_seconds()}")
    return ttl // _MILLISECOND
