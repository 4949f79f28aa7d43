"""Values as bytes, in the one form that handlers of all languages share."""

import dataclasses
import json
from typing import Any, Union

#: What `emit` and `timers` take: bytes as they are, text as UTF-8, and anything
#: else (numbers, lists, dicts, dataclasses, ``None``) as JSON.
Payload = Union[bytes, bytearray, memoryview, str, Any]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no form in JSON; make it a dict, list, str or number")


_ENCODE = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain
).encode


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, without spaces; keys keep their order.

    >>> to_json({"key": "ü", "n": 1})
    b'{"key":"\\xc3\\xbc","n":1}'
    """
    return _ENCODE(value).encode()


def to_bytes(payload: Payload) -> bytes:
    """The bytes of a payload."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload)
    return to_json(payload)
