"""The ``[config]`` table of ``handler.toml``.

A wrong setting raises `Retry`: the event is not at fault, and may do better once
somebody mends the file.
"""

from typing import Any, Callable

from . import host
from .failure import Retry

_REQUIRED = object()


class Config:
    """Settings, which are text. ``config["unit"]`` must be there, and
    ``config.get("threshold", float, 0.5)`` reads one as a number."""

    __slots__ = ()

    def __getitem__(self, name: str) -> str:
        return self.get(name, str, _REQUIRED)

    def __contains__(self, name: str) -> bool:
        return host.config(name) is not None

    def get(self, name: str, type: Callable[[str], Any] = str, default: Any = None) -> Any:
        """The setting as `type` reads its text, or `default` where there is none."""
        text = host.config(name)
        if text is None:
            if default is _REQUIRED:
                raise Retry(f"[config] of handler.toml has no {name!r}")
            return default
        try:
            return type(text)
        except ValueError as error:
            raise Retry(f"[config] {name} = {text!r}: {error}") from None

    def require(self, name: str, type: Callable[[str], Any] = str) -> Any:
        """The setting, which must be there, as `type` reads its text."""
        return self.get(name, type, _REQUIRED)


config = Config()
