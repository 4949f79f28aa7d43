"""Scores product reviews in free text, keeps a running score for each product, and
raises an alert when a product goes wrong.

A review is an event with JSON like ``{"product":"kettle-2","stars":2,"text":"…"}``.
``scoring.py`` turns its words into a mood between -1 and 1. Per product the last
`WINDOW` moods are kept; where their mean falls below ``alert_below``, one alert is
emitted with the words that complainers share, and the next one only after the
product has recovered.
"""

from collections import Counter
from statistics import fmean

from weir_guest import Reject, cell, config, emit, handler, log, subject_token

from scoring import mood, topics

#: Reviews that count. Enough for one angry customer not to make an alert.
WINDOW = 20

#: Reviews that there must be before a product is judged at all.
REVIEWS_MIN = 5

#: Words named in an alert.
TOPICS_MAX = 3


@handler
def reviews(event):
    review = read(event)
    score = round(mood(review["text"]), 3)

    product = cell("score", dict, default={"reviews": 0, "recent": [], "alerted": False})
    state = product.get()
    state["reviews"] += 1
    state["recent"] = [*state["recent"], score][-WINDOW:]
    mean = round(fmean(state["recent"]), 3)

    complaints = cell("complaints", dict, default={})
    counts = Counter(complaints.get())
    if score < 0:
        counts.update(topics(review["text"]))
        complaints.set(keep(counts))

    token = subject_token(event.key)
    emit(f"scores.{token}", {"product": event.key, "mood": score, "mean": mean, "reviews": state["reviews"]})

    low = mean < config.get("alert_below", float, -0.2)
    if low and not state["alerted"] and state["reviews"] >= REVIEWS_MIN:
        about = [word for word, _ in ranked(counts)[:TOPICS_MAX]]
        log.warning("%s is down to %s; they write of %s", event.key, mean, ", ".join(about))
        emit(f"alerts.{token}", {"product": event.key, "mean": mean, "about": about})
    state["alerted"] = low and (state["alerted"] or state["reviews"] >= REVIEWS_MIN)
    product.set(state)


def read(event):
    """The review, or a rejection that says what is wrong with it."""
    review = event.json()
    if not isinstance(review, dict) or not isinstance(review.get("text"), str):
        raise Reject("a review is a JSON object with a text")
    return review


def ranked(counts):
    """Most frequent first; of equals the alphabet decides, so that the order does
    not depend on which came first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def keep(counts, words_max=50):
    """The most frequent words: the cell stays small however long a product sells."""
    return dict(ranked(counts)[:words_max])
