"""The handler's log, which the host keeps with the handler's name and the event's
id: through `logging`, from whatever module, and through `print`.

What one invocation may log is bounded (``log_bytes`` in ``[limits]``), so only
INFO and above are passed on, unless told otherwise with `log.setLevel` or
``logging.getLogger().setLevel``.
"""

import logging

from . import host


class HostHandler(logging.Handler):
    """Passes records of `logging` to the host."""

    def emit(self, record: logging.LogRecord) -> None:
        # Not within a `try`: an error here is one of the line that logs.
        host.log(_level(record.levelno), self.format(record))


def _level(levelno: int) -> int:
    if levelno >= logging.ERROR:
        return host.ERROR
    if levelno >= logging.WARNING:
        return host.WARN
    if levelno >= logging.INFO:
        return host.INFO
    return host.DEBUG if levelno >= logging.DEBUG else host.TRACE


def install() -> None:
    """Makes `logging` write to the host, instead of to stderr."""
    # What is formatted of a record beside its message; it would be the same
    # in every line, and the host adds what matters.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.addHandler(HostHandler())
    root.setLevel(logging.INFO)


#: The handler's own logger.
log = logging.getLogger("handler")
