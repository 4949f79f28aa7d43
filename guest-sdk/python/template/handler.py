"""Counts the events of each key, and says when a key has been quiet for a minute."""

from datetime import timedelta

from weir_guest import cell, emit, handler, subject_token, timers


@handler
def count(event):
    counts = f"counts.{subject_token(event.key)}"
    if event.timer == "quiet":
        emit(counts, {"key": event.key, "quiet": True})
        return

    event.json()  # what is not JSON is rejected: a dead letter, with the reason
    n = cell("count", int, default=0).update(lambda n: n + 1)
    emit(counts, {"key": event.key, "count": n})
    if n == 1:
        timers.after("quiet", timedelta(minutes=1))
