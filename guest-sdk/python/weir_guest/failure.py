"""How a handler fails. Whichever way, nothing of the invocation is kept.

* `Retry`: the host calls again with its backoff, events of the same partition
  wait, and when the attempts are used up the event is dead-lettered.
* `Reject`: no attempt will do better; the event is dead-lettered now.
* Any other exception that leaves the handler is a fault: retried like `Retry`,
  with the traceback as the reason.
"""


class Retry(Exception):
    """Try the event again later."""


class Reject(Exception):
    """Never going to work: dead-letter the event."""


class BadPayload(Reject, ValueError):
    """The event's data is not what the handler asked to read it as."""


class CellError(Exception):
    """A cell does not hold what it is read as. No `Reject`: the event is not to
    blame for what an older version wrote."""
