"""Cells: what a handler remembers of the event's key.

A cell is a name and some bytes. Reads see the writes of this invocation; all of
them are committed with everything else it did. `cells` is a dict of bytes,
``cells.json`` the same cells as JSON, and `cell` a typed view of one.
"""

import json
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import host
from .encoding import to_json
from .failure import CellError

T = TypeVar("T")


class Cells(MutableMapping):
    """The cells of the event's key: names to bytes.

    ``cells["n"]``, ``cells.get("n")``, ``"n" in cells``, ``del cells["n"]``, and
    iteration in byte order of the names all work as with a dict.
    """

    __slots__ = ("json",)

    #: The same cells, read and written as JSON.
    json: "JsonCells"

    def __getitem__(self, name: str) -> bytes:
        value = host.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        value = host.get(name)
        return default if value is None else value

    def __setitem__(self, name: str, value: Union[bytes, bytearray, memoryview]) -> None:
        host.set(name, as_bytes("cell", name, value))

    def __delitem__(self, name: str) -> None:
        if host.get(name) is None:
            raise KeyError(name)
        host.delete(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and host.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(host.names(""))

    def __len__(self) -> int:
        return len(host.names(""))

    def discard(self, name: str) -> None:
        """Removes a cell, if there is one."""
        host.delete(name)

    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, in byte order."""
        return host.names(prefix)

    def get_many(self, names: Iterable[str]) -> list[Optional[bytes]]:
        """Several cells with one call; one answer per name, in their order."""
        return host.get_many(list(names))

    def __repr__(self) -> str:
        return "<the cells of the event's key>"


class JsonCells(MutableMapping):
    """`cells`, each value as JSON."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return _decode("cell", name, cells[name])

    def get(self, name: str, default: Any = None) -> Any:
        value = host.get(name)
        return default if value is None else _decode("cell", name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        host.set(name, to_json(value))

    def __delitem__(self, name: str) -> None:
        del cells[name]

    def __contains__(self, name: object) -> bool:
        return name in cells

    def __iter__(self) -> Iterator[str]:
        return iter(cells)

    def __len__(self) -> int:
        return len(cells)

    def __repr__(self) -> str:
        return "<the cells of the event's key, as JSON>"


cells = Cells()
cells.json = JsonCells()


class Cell(Generic[T]):
    """A typed view of one cell. Bytes are kept as they are, all else as JSON, so
    that ``weir state get`` shows something that people can read: an integer is
    its decimal text."""

    __slots__ = ("name", "type", "default")

    #: What it is called in an error.
    _kind = "cell"

    def __init__(self, name: str, type: type[T], default: Optional[T]):
        if type not in _TYPES:
            known = ", ".join(sorted(known.__name__ for known in _TYPES))
            raise TypeError(f"{self._kind} {name!r}: a cell is one of {known}, not {type!r}")
        self.name = name
        self.type = type
        self.default = default

    def _read(self) -> Optional[bytes]:
        return host.get(self.name)

    def _write(self, value: bytes) -> None:
        host.set(self.name, value)

    def get(self) -> Any:
        """The value, or the default where nothing was written.

        Raises `CellError` where the cell holds something else.
        """
        raw = self._read()
        if raw is None:
            # A list or dict may be changed by whoever gets it; the default stays.
            default = self.default
            return default.copy() if isinstance(default, (list, dict)) else default
        if self.type is bytes:
            return raw
        value = _decode(self._kind, self.name, raw)
        if type(value) is not self.type:
            if self.type is float and type(value) is int:
                return float(value)
            raise CellError(
                f"{self._kind} {self.name!r} holds {value!r:.100}, which is not {self.type.__name__}"
            )
        return value

    def set(self, value: T) -> None:
        """Writes the value."""
        if self.type is bytes:
            self._write(as_bytes(self._kind, self.name, value))
        else:
            self._write(to_json(value))

    def delete(self) -> None:
        """Removes the cell, if there is one."""
        host.delete(self.name)

    def update(self, change: Callable[[T], T]) -> T:
        """Replaces the value by what `change` makes of it, and returns that."""
        value = change(self.get())
        self.set(value)
        return value

    @property
    def value(self) -> Any:
        """`get` and `set` as an attribute: ``cell("n", int, 0).value += 1``."""
        return self.get()

    @value.setter
    def value(self, value: T) -> None:
        self.set(value)

    def __repr__(self) -> str:
        return f"<{self._kind} {self.name!r} of {self.type.__name__}>"


def cell(name: str, type: type[T], default: Optional[T] = None) -> Cell[T]:
    """A typed view of a cell: ``int``, ``float``, ``str``, ``bool``, ``list``,
    ``dict``, or ``bytes`` for the bytes as they are.

    A cell that was never written reads as `default`.
    """
    return Cell(name, type, default)


_TYPES = frozenset((bool, bytes, dict, float, int, list, str))


def as_bytes(kind: str, name: str, value: Union[bytes, bytearray, memoryview]) -> bytes:
    """What is written to a cell of bytes."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{kind} {name!r} takes bytes, not {type(value).__name__}; cell(…) takes other values")
    return bytes(value)


def _decode(kind: str, name: str, raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise CellError(f"{kind} {name!r} holds {raw[:100]!r}, which is not JSON: {error}") from None
