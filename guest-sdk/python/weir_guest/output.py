"""Events that a handler emits. They appear in the ledger when the invocation is
committed, in the order of the calls, and never if it fails."""

from collections.abc import Iterable, Mapping
from typing import Optional, Union

from . import host
from .encoding import Payload, to_bytes

#: A dict, or (name, value) pairs where a name is given more than once.
Headers = Union[Mapping[str, str], Iterable[tuple[str, str]]]


def emit(subject: str, payload: Payload = b"", headers: Optional[Headers] = None) -> None:
    """Emits an event.

    The payload is bytes as they are, text as UTF-8, or anything that has a form
    in JSON. A subject outside the ``[emit]`` table of ``handler.toml`` fails the
    invocation. Header names that begin with ``Nats-`` belong to the server.
    """
    if not headers:
        host.emit(subject, [], to_bytes(payload))
        return
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    host.emit(subject, [host.header(name, value) for name, value in pairs], to_bytes(payload))
