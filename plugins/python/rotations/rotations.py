"""Numbers the events of each key: 1, 2, 3, … The example that every guest language
has, byte for byte the same."""

from weir_guest import Reject, Retry, cell, emit, handler, subject_token


@handler
def rotations(event):
    order = event.header("Weir-Test")
    if order is not None:
        misbehave(order)
    n = cell("n", int, default=0).update(lambda n: n + 1)
    emit(f"rotations.{subject_token(event.key)}", {"key": event.key, "n": n, "of": event.id})


def misbehave(order):
    """What a test asks for with the header `Weir-Test`."""
    if order == "retry":
        raise Retry("asked to retry")
    if order == "reject":
        raise Reject("asked to reject")
    if order == "trap":
        raise RuntimeError("asked to trap")
    if order == "spin":
        while True:
            pass
    if order == "hoard":
        hoard = []
        while True:
            hoard.append(b"\1" * (1 << 20))
