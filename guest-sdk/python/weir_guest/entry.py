"""From the host's call to the handler's function and back."""

import linecache
import os
import random
import sys
import traceback
from typing import Any, Callable, Optional

from . import host
from .event import Event
from .failure import Reject, Retry
from .log import install

#: Characters of a traceback that are kept. A dead letter's reason has 4,096 bytes,
#: and the host adds what kind of trap it was.
TRACEBACK_CHARS_MAX = 3_500

#: Characters of one line, such as a message with a value in it.
LINE_CHARS_MAX = 500

#: What stands where the middle was cut out.
CUT = "\n  […]\n"

#: Frames on either side of those that are left out of a deep traceback.
TRACEBACK_FRAMES = 8


def handler(function: Callable[[Event], Any]) -> Callable[[Event], Any]:
    """Makes a function the handler of this component.

    It takes an `Event`; what it returns is of no account. There is one per
    component, in the module that is built. The function itself stays as it is, so
    that tests can call it.
    """
    if host.IN_WASM:
        function.__globals__["WitWorld"] = _world(function)
    return function


def _world(function: Callable[[Event], Any]) -> type:
    import wit_world
    from componentize_py_types import Err
    from wit_world.imports.types import Failure_Reject, Failure_Retry

    install()
    _keep_sources()
    reused = False

    class WitWorld(wit_world.WitWorld):
        def handle(self, e: Any) -> None:
            # componentize-py seeds `random` at the first call of an instance, out of that
            # event's random numbers. Every later event begins with the same draw, so that
            # it sees what it would have seen in an instance of its own.
            nonlocal reused
            if reused:
                random.seed()
            reused = True
            host.now = e.time
            try:
                function(
                    Event(e.id, e.stream, e.sequence, e.subject, e.key, e.time, e.timer, e.headers, e.data)
                )
            except Retry as failure:
                raise Err(Failure_Retry(str(failure))) from None
            except Reject as failure:
                raise Err(Failure_Reject(str(failure))) from None
            except BaseException as error:
                _fault(error)
            finally:
                # What `print` wrote belongs to this event, not to the next.
                sys.stdout.flush()

    return WitWorld


def _keep_sources() -> None:
    """Keeps the lines of what is loaded from outside the standard library, for
    tracebacks: a component has no files to read them from."""
    standard = os.path.dirname(os.__file__)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith(standard):
            lines = linecache.getlines(file)
            # Without a time of change, so that nobody looks for the file.
            linecache.cache[file] = (0, None, lines, file)


def _fault(error: BaseException) -> None:
    """Ends the instance with the traceback as its last words."""
    sys.stdout.flush()
    host.log(host.ERROR, describe(error))
    os.abort()


def describe(error: BaseException) -> str:
    """The traceback as Python prints it, without our own frames, and cut where it
    is too long for a dead letter: in its lines, then in its calls, then in the middle."""
    told = traceback.TracebackException.from_exception(error)
    _trim(told)
    lines = "".join(told.format()).rstrip().split("\n")
    text = "\n".join(line if len(line) <= LINE_CHARS_MAX else line[:LINE_CHARS_MAX] + " […]" for line in lines)
    if len(text) > TRACEBACK_CHARS_MAX:
        head, tail = TRACEBACK_CHARS_MAX // 4, TRACEBACK_CHARS_MAX // 4 * 3 - len(CUT)
        text = text[:head] + CUT + text[-tail:]
    return text


def _trim(told: Optional[traceback.TracebackException]) -> None:
    while told is not None:
        own = os.path.dirname(__file__)
        frames = [frame for frame in told.stack if os.path.dirname(frame.filename) != own]
        if len(frames) > 2 * TRACEBACK_FRAMES:
            between = f"[{len(frames) - 2 * TRACEBACK_FRAMES} more calls]"
            skipped = traceback.FrameSummary(between, 0, "", lookup_line=False, line="")
            frames[TRACEBACK_FRAMES:-TRACEBACK_FRAMES] = [skipped]
        told.stack = traceback.StackSummary.from_list(frames)
        told = told.__cause__ or told.__context__
