"""Event sourcing: an aggregate is what its events made of it.

A command comes in, ``decide`` says which events follow from it, and ``evolve`` what each
of them changes. Nothing else changes it. State, commands and events are dataclasses::

    from dataclasses import dataclass
    from weir_guest import aggregate, handler
    from weir_guest.aggregate import Aggregate, Refused

    @dataclass
    class Deposit:
        cents: int

    @dataclass
    class Deposited:
        cents: int

    @dataclass
    class Account(Aggregate, name="bank.account", commands=[Deposit], events=[Deposited]):
        cents: int = 0

        def decide(self, command):
            if command.cents <= 0:
                raise Refused("nothing to deposit")
            return [Deposited(command.cents)]

        def evolve(self, event):
            self.cents += event.cents

    @handler
    def account(event):
        aggregate.handle(Account, event)

=================  ================================================================
a command          any subject of the handler's sources; the event's key is the
                   aggregate's id; the payload is ``{"type":"Deposit","cents":5}``
an event           ``<name>.<id>``, like ``{"type":"Deposited","cents":5}``
a refusal          ``<name>.<id>.rejected``, like ``{"command":"C:7","version":3,
                   "reason":"nothing to deposit"}``; so ``<name>.*`` has facts only
the state          the cell ``aggregate``: ``{"version":3,"state":{…}}``, in the
                   commit of the events
=================  ================================================================

Events and refusals have the headers ``Event-Type`` and ``Aggregate-Version``, and the
``Saga-…`` headers of their command. A command may have ``Expected-Version``; another one
is a refusal. It is the same on the wire as in the Rust SDK with serde's ``tag = "type"``.

What is no command at all, or an expected version that is no number, is a `Reject`: a dead
letter, not a refusal. An exception of ``evolve`` fails the invocation as a whole.
"""

import dataclasses
import typing
from collections.abc import Iterable
from typing import Any, Generic, Optional, TypeVar

from .event import Event
from .failure import CellError, Reject
from .output import emit
from .state import cells
from .subject import from_subject_token, subject_token

EXPECTED_VERSION = "Expected-Version"
EVENT_TYPE = "Event-Type"
AGGREGATE_VERSION = "Aggregate-Version"

#: ``Event-Type`` of a refusal.
REJECTED = "Rejected"

#: The cell that holds version and state.
CELL = "aggregate"

#: Headers that go from a command to what follows from it.
SAGA_HEADERS = ("Saga-Id", "Saga-Step", "Saga-Attempt")

T = TypeVar("T")


class Refused(Exception):
    """Raised by ``decide``: the command is refused, and changes nothing.

    The reason is anything that has a form in JSON.
    """

    def __init__(self, reason: Any):
        super().__init__(reason)
        self.reason = reason


class Aggregate:
    """What an aggregate is derived from, a dataclass whose fields have defaults.

    The fields outlive the code that wrote them: give new ones a default, and leave those
    that are not needed any more.
    """

    _name: str
    _commands: dict[str, type]
    _events: dict[str, type]

    def __init_subclass__(
        cls, *, name: str, commands: Iterable[type], events: Iterable[type], **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        cls._name = name
        cls._commands = {command.__name__: command for command in commands}
        cls._events = {event.__name__: event for event in events}

    def decide(self, command: Any) -> Iterable[Any]:
        """Which events follow from a command; none means that there is nothing to do.
        Raises `Refused`."""
        raise NotImplementedError

    def evolve(self, event: Any) -> None:
        """What an event changes. It happened: this cannot fail."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Recorded(Generic[T]):
    """An event of an aggregate, as another handler reads it."""

    #: The aggregate's id.
    id: str
    #: Its version after this event.
    version: int
    event: T


def handle(kind: type[Aggregate], event: Event) -> None:
    """Handles an event whose payload is a command."""
    execute(kind, event, _decode(kind._commands, event.json(), "command"))


def execute(kind: type[Aggregate], event: Event, command: Any) -> None:
    """Handles a command that was made of an event in some other way."""
    version, state = _load(kind)
    subject = f"{kind._name}.{subject_token(event.key)}"

    def refuse(**why: Any) -> None:
        payload = {"command": event.id, "version": version, **why}
        emit(f"{subject}.rejected", payload, _headers(event, REJECTED, version))

    if (expected := event.header(EXPECTED_VERSION)) is not None:
        if not (expected.isascii() and expected.isdigit()):
            raise Reject(f"{EXPECTED_VERSION}: {expected!r} is no version")
        if int(expected) != version:
            refuse(expected_version=int(expected))
            return
    try:
        events = list(state.decide(command))
    except Refused as refusal:
        refuse(reason=refusal.reason)
        return
    for change in events:
        if type(change) not in kind._events.values():
            raise TypeError(f"{kind.__name__} decided {change!r}, which is none of its events")
        version += 1
        state.evolve(change)
        emit(subject, encode(change), _headers(event, type(change).__name__, version))
    if events:
        cells.json[CELL] = {"version": version, "state": dataclasses.asdict(state)}


def read(kind: type[Aggregate], event: Event) -> Optional[Recorded[Any]]:
    """Reads an event of an aggregate, in a projection or whoever else follows it. None
    where the event is none: it has no ``Aggregate-Version``, or it is a refusal."""
    version = event.header(AGGREGATE_VERSION)
    if version is None or event.header(EVENT_TYPE) == REJECTED and event.subject.endswith(".rejected"):
        return None
    id = from_subject_token(event.subject.rpartition(".")[2])
    if id is None or not (version.isascii() and version.isdigit()):
        raise Reject(f"{event.subject} with {AGGREGATE_VERSION} {version!r} is no event of an aggregate")
    return Recorded(id, int(version), _decode(kind._events, event.json(), "event"))


def encode(message: Any) -> dict[str, Any]:
    """A command or an event as it is on the wire."""
    return {"type": type(message).__name__, **dataclasses.asdict(message)}


def _headers(cause: Event, kind: str, version: int) -> list[tuple[str, str]]:
    saga = ((name, cause.header(name)) for name in SAGA_HEADERS)
    return [
        (EVENT_TYPE, kind),
        (AGGREGATE_VERSION, str(version)),
        *((name, value) for name, value in saga if value is not None),
    ]


def _load(kind: type[Aggregate]) -> tuple[int, Aggregate]:
    found = cells.json.get(CELL)
    if found is None:
        return 0, kind()
    try:
        return found["version"], kind(**found["state"])
    except (KeyError, TypeError) as error:
        raise CellError(f"cell {CELL!r} is no {kind.__name__}: {error}") from None


def _decode(kinds: dict[str, type], value: Any, what: str) -> Any:
    """The dataclass that a ``type`` names, of the other fields."""
    name = value.get("type") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in kinds:
        known = ", ".join(kinds)
        raise Reject(f"the {what} has the type {name!r}, which is none of {known}")
    kind = kinds[name]
    fields = {field: of for field, of in value.items() if field != "type"}
    try:
        message = kind(**fields)
    except TypeError as error:
        raise Reject(f"the {what} {name}: {error}") from None
    for field, hint in typing.get_type_hints(kind).items():
        held = getattr(message, field)
        if hint in _PLAIN and type(held) is not hint and not (hint is float and type(held) is int):
            raise Reject(f"the {what} {name}: {field} is {held!r}, which is not {hint.__name__}")
    return message


_PLAIN = frozenset((bool, dict, float, int, list, str))


class Given:
    """See `given`."""

    def __init__(self, kind: type[Aggregate], events: tuple[Any, ...]):
        self.kind = kind
        self.state = kind()
        for event in events:
            self.state.evolve(event)

    def when(self, command: Any) -> "Decided":
        """Decides on a command."""
        try:
            return Decided(list(self.state.decide(command)), None)
        except Refused as refusal:
            return Decided(None, refusal)


class Decided:
    """See `given`."""

    def __init__(self, events: Optional[list[Any]], refusal: Optional[Refused]):
        self.events = events
        self.refusal = refusal

    def then(self, *expected: Any) -> None:
        """Raises `AssertionError` unless exactly these events follow."""
        if self.refusal is not None:
            raise AssertionError(f"it was refused ({self.refusal.reason!r}), and not decided: {expected!r}")
        if self.events != list(expected):
            raise AssertionError(f"it decided {self.events!r}, and not {list(expected)!r}")

    def refuses(self, reason: Any) -> None:
        """Raises `AssertionError` unless the command is refused for this reason."""
        if self.refusal is None:
            raise AssertionError(f"it decided {self.events!r}, and did not refuse it ({reason!r})")
        if self.refusal.reason != reason:
            raise AssertionError(f"it was refused because of {self.refusal.reason!r}, and not {reason!r}")


def given(kind: type[Aggregate], *events: Any) -> Given:
    """An aggregate's rules as sentences, without a host::

        given(Account, Deposited(5)).when(Withdraw(2)).then(Withdrawn(2))
        given(Account).when(Withdraw(2)).refuses("too little")
    """
    return Given(kind, events)
