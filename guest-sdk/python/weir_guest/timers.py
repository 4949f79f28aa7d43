"""Durable timers of the event's key.

A timer that fires is an event of the same key, in order with all the others,
whose `Event.timer` is the timer's name. Setting one of the same name replaces it.
Both happen with the commit, so a timer that was cancelled does not fire::

    if event.timer == "unpaid":
        emit("orders.cancelled", event.key)
    elif event.subject == "orders.paid":
        timers.cancel("unpaid")
    else:
        timers.after("unpaid", timedelta(minutes=15))
"""

from datetime import datetime, timedelta, timezone
from typing import Optional, Union

from . import host
from .encoding import Payload, to_bytes

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def set(name: str, at: Union[int, datetime], data: Payload = b"") -> None:
    """Sets a timer for `at`: Unix time in nanoseconds, as `Event.time` is, or a
    datetime with its time zone. One that is due already fires at once. Its event
    carries `data`, which is what `emit` takes."""
    host.set_timer(name, _nanoseconds(at), to_bytes(data))


def after(name: str, delay: Union[int, float, timedelta], data: Payload = b"") -> None:
    """Sets a timer this long after the event being handled was stored; a number
    is seconds."""
    if not isinstance(delay, timedelta):
        delay = timedelta(seconds=delay)
    host.set_timer(name, host.now + delay // _MICROSECOND * 1000, to_bytes(data))


def cancel(name: str) -> None:
    """Removes a timer, if there is one."""
    host.cancel_timer(name)


def due(name: str) -> Optional[int]:
    """When the timer of that name is due, in Unix nanoseconds, if it is set."""
    return host.timer_due(name)


def _nanoseconds(at: Union[int, datetime]) -> int:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"{at!r} has no time zone; say timezone.utc if it is UTC")
        return (at - _EPOCH) // _MICROSECOND * 1000
    if type(at) is not int:
        raise TypeError(f"a timer is due at Unix nanoseconds (an int) or a datetime, not {at!r}")
    return at
