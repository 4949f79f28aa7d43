"""What a handler is called with."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any, Optional, Sequence

from .failure import BadPayload

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Event:
    """One event: a JetStream message of a source, or a timer that fired."""

    __slots__ = ("id", "stream", "sequence", "subject", "key", "time", "timer", "_headers", "data")

    #: Stable and unique, ``<stream>:<sequence>``: the same in every attempt, and
    #: so a good idempotency key for whatever the handler emits.
    id: str
    #: The stream that the event is stored in, and its sequence there.
    stream: str
    sequence: int
    #: The subject it was published on.
    subject: str
    #: The key it belongs to, as ``[key]`` of ``handler.toml`` says. State, timers
    #: and order are per key.
    key: str
    #: When the stream stored it: Unix time in nanoseconds.
    time: int
    #: The timer's name, if this is a timer that fired.
    timer: Optional[str]
    #: The payload.
    data: bytes

    def __init__(
        self,
        id: str,
        stream: str,
        sequence: int,
        subject: str,
        key: str,
        time: int,
        timer: Optional[str],
        headers: Sequence[Any],
        data: bytes,
    ):
        self.id = id
        self.stream = stream
        self.sequence = sequence
        self.subject = subject
        self.key = key
        self.time = time
        self.timer = timer
        self._headers = headers
        self.data = data

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All headers as (name, value), in the order of the message."""
        return [(header.name, header.value) for header in self._headers]

    def header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        """The first header of that name, which is compared without regard to case."""
        if self._headers:
            name = name.lower()
            for header in self._headers:
                if header.name.lower() == name:
                    return header.value
        return default

    @property
    def datetime(self) -> datetime:
        """`time` in UTC, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.time // 1000)

    def json(self) -> Any:
        """The payload read as JSON.

        Raises `BadPayload`, a `Reject`: the same bytes will not read better next
        time.
        """
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise BadPayload(f"the event's data is not JSON: {error}") from None
        except RecursionError:
            raise BadPayload("the event's data is JSON that is nested too deep") from None

    def text(self) -> str:
        """The payload read as UTF-8. Raises `BadPayload`."""
        try:
            return self.data.decode()
        except ValueError as error:
            raise BadPayload(f"the event's data is not UTF-8: {error}") from None

    def __repr__(self) -> str:
        timer = "" if self.timer is None else f" timer={self.timer!r}"
        return f"<Event {self.id} subject={self.subject!r} key={self.key!r}{timer} {len(self.data)} bytes>"
