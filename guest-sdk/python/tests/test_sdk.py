"""Of the SDK, in an ordinary Python: ``PYTHONPATH=. python3 -m unittest discover tests``."""

import logging
import random
import unittest
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from weir_guest import (
    BadPayload,
    CellError,
    Reject,
    Retry,
    cell,
    cells,
    config,
    emit,
    handler,
    log,
    subject_token,
    timers,
)
from weir_guest.testing import Emitted, Host, Timer, event


def run(function, host=None, **given):
    """Delivers one event to a function, and returns what it did."""
    return (host or Host()).deliver(function, event("a.b", **given))


class Events(unittest.TestCase):
    def test_an_event_arrives_whole(self):
        @handler
        def check(e):
            self.assertEqual((e.id, e.stream, e.sequence), ("ORDERS:7", "ORDERS", 7))
            self.assertEqual((e.subject, e.key, e.timer, e.data), ("a.b", "k", None, b'{"n":1}'))
            self.assertEqual(e.datetime, datetime(2013, 1, 1, tzinfo=timezone.utc))
            self.assertEqual(e.headers, [("One", "1"), ("one", "2")])
            self.assertEqual((e.header("ONE"), e.header("two"), e.header("two", "x")), ("1", None, "x"))
            self.assertEqual((e.json(), e.text()), ({"n": 1}, '{"n":1}'))

        run(
            check,
            key="k",
            data={"n": 1},
            headers=[("One", "1"), ("one", "2")],
            time=datetime(2013, 1, 1, tzinfo=timezone.utc),
            stream="ORDERS",
            sequence=7,
        )

    def test_events_are_numbered_and_keyed_by_subject(self):
        seen = []
        host = Host()
        for _ in range(2):
            run(lambda e: seen.append((e.id, e.key)), host)
        self.assertEqual(seen, [("TEST:1", "a.b"), ("TEST:2", "a.b")])

    def test_what_cannot_be_read_is_rejected(self):
        for data in (b"{", b"\xff", b"", b"[" * 100_000):
            with self.assertRaises(BadPayload) as caught:
                run(lambda e: e.json(), data=data)
            self.assertIsInstance(caught.exception, Reject)
            self.assertIsInstance(caught.exception, ValueError)
        with self.assertRaises(Reject):
            run(lambda e: e.text(), data=b"\xff")


class State(unittest.TestCase):
    def test_cells_are_a_dict_of_bytes(self):
        def check(_):
            self.assertEqual((len(cells), list(cells), cells.get("a"), "a" in cells), (0, [], None, False))
            with self.assertRaises(KeyError):
                cells["a"]
            with self.assertRaises(KeyError):
                del cells["a"]
            cells["b"], cells["a"], cells["ax"] = b"2", bytearray(b"1"), b"3"
            self.assertEqual(list(cells.items()), [("a", b"1"), ("ax", b"3"), ("b", b"2")])
            self.assertEqual(cells.names("a"), ["a", "ax"])
            self.assertEqual(cells.get_many(["b", "c"]), [b"2", None])
            self.assertEqual(cells.pop("ax"), b"3")
            cells.discard("never")
            with self.assertRaises(TypeError):
                cells["a"] = "text"

        self.assertEqual(run(check).cells, {"b": b"2", "a": b"1", "ax": None})

    def test_json_cells(self):
        def check(_):
            cells.json["p"] = {"ü": [1, None]}
            self.assertEqual(cells["p"], '{"ü":[1,null]}'.encode())
            self.assertEqual(cells.json["p"], {"ü": [1, None]})
            self.assertEqual(cells.json.get("q", 3), 3)
            cells["p"] = b"{"
            with self.assertRaises(CellError):
                cells.json["p"]

        run(check)

    def test_typed_cells(self):
        def check(_):
            n = cell("n", int, default=0)
            self.assertEqual(n.update(lambda n: n + 1), 1)
            n.value += 1
            self.assertEqual((n.get(), cells["n"]), (2, b"2"))
            self.assertEqual(cell("n", float, default=0.0).get(), 2.0)
            with self.assertRaises(CellError):
                cell("n", str).get()
            with self.assertRaises(CellError):
                cell("n", bool).get()
            n.delete()
            self.assertEqual((n.get(), cell("n", int).get()), (0, None))
            cell("raw", bytes, default=b"").set(b"\0")
            self.assertEqual(cells["raw"], b"\0")
            with self.assertRaises(TypeError):
                cell("n", set)

        run(check)

    def test_a_default_is_not_shared(self):
        seen = cell("seen", list, default=[])

        def check(_):
            seen.get().append(1)
            self.assertEqual(seen.get(), [])

        run(check)

    def test_what_fails_leaves_nothing(self):
        host = Host()
        run(lambda _: cell("n", int, 0).set(1), host)

        def fails(_):
            cell("n", int, 0).set(2)
            timers.set("t", 1)
            raise Retry("later")

        with self.assertRaises(Retry):
            run(fails, host)
        self.assertEqual((host.cell("a.b", "n"), host.timers["a.b"]), (b"1", {}))


class Output(unittest.TestCase):
    def test_payloads(self):
        @dataclass
        class Point:
            x: int
            y: float

        def check(_):
            emit("none")
            emit("bytes", b"\0")
            emit("view", memoryview(b"ab"))
            emit("text", "ü")
            emit("json", {"key": "ü", "of": [1, None, Point(1, 0.5)]})
            emit("headers", b"", {"A": "b"})
            emit("pairs", b"", [("A", "b"), ("A", "c")])

        emitted = run(check).emitted
        self.assertEqual(
            [e.data for e in emitted[:5]],
            [b"", b"\0", b"ab", "ü".encode(), '{"key":"ü","of":[1,null,{"x":1,"y":0.5}]}'.encode()],
        )
        self.assertEqual(emitted[5], Emitted("headers", b"", [("A", "b")]))
        self.assertEqual(emitted[6].headers, [("A", "b"), ("A", "c")])

    def test_what_has_no_json_says_so(self):
        with self.assertRaisesRegex(TypeError, "set has no form in JSON"):
            run(lambda _: emit("a", {1}))
        with self.assertRaises(ValueError):
            run(lambda _: emit("a", {"nan": float("nan")}))

    def test_subject_tokens(self):
        for text, token in (("N14228", "N14228"), ("a.b *>", "a%2Eb%20%2A%3E"), ("ü", "%C3%BC"), ("", ""), ("_-", "_-")):
            self.assertEqual(subject_token(text), token)


class Timers(unittest.TestCase):
    def test_timers_are_set_cancelled_and_fire(self):
        def check(e):
            if e.timer is None:
                timers.after("quiet", 60, {"a": 1})
                timers.after("soon", timedelta(milliseconds=1))
                timers.set("at", datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc))
                timers.set("gone", 5)
                timers.cancel("gone")
                timers.cancel("never")
            else:
                emit("fired", {"timer": e.timer, "time": e.time, "data": e.json(), "due": timers.due(e.timer)})

        host = Host()
        effects = run(check, host, time=7)
        self.assertEqual(
            effects.timers,
            {
                "quiet": Timer("quiet", 60_000_000_007, b'{"a":1}'),
                "soon": Timer("soon", 1_000_007, b""),
                "at": Timer("at", 1_000_000_000, b""),
                "gone": None,
            },
        )
        fired = host.fire(check, "a.b", "quiet").emitted[0].json()
        self.assertEqual(fired, {"timer": "quiet", "time": 60_000_000_007, "data": {"a": 1}, "due": None})
        with self.assertRaises(KeyError):
            host.fire(check, "a.b", "quiet")

    def test_times_that_are_none(self):
        for at in (1.5, "soon", True):
            with self.assertRaises(TypeError):
                run(lambda _: timers.set("t", at))
        with self.assertRaises(ValueError):
            run(lambda _: timers.set("t", datetime(2020, 1, 1)))


class Settings(unittest.TestCase):
    def test_settings(self):
        def check(_):
            self.assertEqual((config["unit"], config.get("unit"), "unit" in config), ("C", "C", True))
            self.assertEqual((config.get("limit", int), config.get("other", int, 3), config.get("other")), (30, 3, None))
            with self.assertRaisesRegex(Retry, "has no 'other'"):
                config["other"]
            with self.assertRaisesRegex(Retry, "unit = 'C'"):
                config.require("unit", float)

        run(check, Host(config={"unit": "C", "limit": "30"}))


class Logging(unittest.TestCase):
    def test_logging_reaches_the_host(self):
        def check(_):
            log.info("%d bytes", 7)
            logging.getLogger("lib").error("no")
            log.debug("not passed on")

        self.assertEqual(run(check).log, [("info", "7 bytes"), ("error", "no")])


class Outside(unittest.TestCase):
    def test_calls_outside_of_a_delivery_say_what_to_do(self):
        with self.assertRaisesRegex(RuntimeError, "weir_guest.testing"):
            emit("a")

    def test_random_numbers_follow_from_the_event(self):
        def check(_):
            emit("a", random.random())

        once, again = (run(check).emitted for _ in range(2))
        self.assertEqual(once, again)


if __name__ == "__main__":
    unittest.main()
