"""From the host's call to the handler's function and back."""

import linecache
import os
import random
import sys
import traceback
from typing import Any, Callable

from . import host
from .event import Event
from .failure import Reject, Retry
from .log import install

#: Characters of a traceback that are kept. A dead letter's reason has 4,096 bytes,
#: and the host adds what kind of trap it was.
TRACEBACK_CHARS_MAX = 3_500

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

    class WitWorld(wit_world.WitWorld):
        def handle(self, e: Any) -> None:
            random.seed(int.from_bytes(os.urandom(8), "little"))
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
    """The traceback as Python prints it, without our own frames, cut in the middle
    where it is too long for a dead letter."""
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(__file__)
    frames = [frame for frame in frames if os.path.dirname(frame.filename) != own] or list(frames)
    lines = []
    if len(frames) > 2 * TRACEBACK_FRAMES:
        left_out = len(frames) - 2 * TRACEBACK_FRAMES
        lines += traceback.format_list(frames[:TRACEBACK_FRAMES])
        lines.append(f"  [{left_out} more calls]\n")
        frames = frames[-TRACEBACK_FRAMES:]
    lines += traceback.format_list(frames)
    last = "".join(traceback.format_exception_only(error)).strip()
    room = TRACEBACK_CHARS_MAX // 2
    if len(last) > room:
        last = last[:room] + " […]"
    head = "Traceback (most recent call last):\n"
    calls = "".join(lines)
    room = TRACEBACK_CHARS_MAX - len(head) - len(last)
    if len(calls) > room:
        calls = "  […]\n" + calls[-room:].partition("\n")[2]
    return head + calls + last
