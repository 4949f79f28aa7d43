"""Of shared cells and locks, in an ordinary Python."""

import unittest
from datetime import timedelta

from weir_guest import CellError, Retry, cell, cells, emit, shared
from weir_guest.testing import Host, Waits, event


class SharedCells(unittest.TestCase):
    def test_they_are_those_of_all_keys_and_kept_only_by_success(self):
        def add(e):
            shared.cell("sum", int, default=0).value += 1
            if e.header("fail"):
                raise Retry("no")

        host = Host()
        host.deliver(add, event("a"))
        self.assertEqual(host.deliver(add, event("b")).shared, {"sum": b"2"})
        with self.assertRaises(Retry):
            host.deliver(add, event("b", headers={"Fail": "no"}))
        self.assertEqual(host.shared, {"sum": b"2"})

        host.shared["sum"] = b"40"

        def look(_):
            self.assertEqual((shared.get("sum"), shared.get("none"), "sum" in cells), (b"40", None, False))
            shared.delete("sum")
            shared.delete("none")
            self.assertEqual(shared.get("sum"), None)

        self.assertEqual(host.deliver(look, event("c")).shared, {"sum": None})
        self.assertEqual(host.shared, {})

    def test_they_hold_what_cells_hold(self):
        def check(_):
            for name, type, value in (
                ("text", str, "ü"),
                ("list", list, [1, None]),
                ("dict", dict, {"ü": 0.5}),
                ("raw", bytes, b"\0"),
            ):
                own, seen = cell(name, type), shared.cell(name, type)
                self.assertEqual(seen.get(), None)
                own.set(value)
                seen.set(value)
                self.assertEqual((seen.get(), shared.get(name)), (value, cells[name]))
            n = shared.cell("n", int, default=1)
            self.assertEqual(n.update(lambda n: n + 1), 2)
            self.assertEqual((n.value, cell("n", int, 0).get()), (2, 0))
            n.delete()
            self.assertEqual(n.get(), 1)

        Host().deliver(check, event("a"))

    def test_what_is_wrong_names_the_shared_cell(self):
        def check(_):
            shared.set("n", bytearray(b"x"))
            with self.assertRaisesRegex(CellError, "^shared cell 'n' holds b'x', which is not JSON"):
                shared.cell("n", int).get()
            with self.assertRaisesRegex(CellError, "^shared cell 'text' holds 'a', which is not int"):
                shared.cell("text", str).set("a")
                shared.cell("text", int).get()
            with self.assertRaisesRegex(TypeError, "^shared cell 'n' takes bytes, not str"):
                shared.set("n", "text")
            with self.assertRaisesRegex(TypeError, "^shared cell 'n': a cell is one of"):
                shared.cell("n", set)

        Host().deliver(check, event("a"))


class Locks(unittest.TestCase):
    def setUp(self):
        self.host = Host()

    def lock(self, key, lock=shared.lock):
        """Delivers an event that takes the lock, and returns the token."""
        effects = self.host.deliver(lambda _: emit("token", lock("van", 60)), event("a", key=key))
        return effects.emitted[0].json()

    def unlock(self, key):
        self.host.deliver(lambda _: shared.unlock("van"), event("a", key=key))

    def test_a_lock_is_held_from_event_to_event(self):
        self.assertEqual(self.host.lock_holder("van"), None)
        self.assertEqual([self.lock("a"), self.lock("a"), self.host.lock_holder("van")], [1, 1, "a"])
        self.unlock("b")
        self.assertEqual(self.lock("b", shared.try_lock), None)
        self.unlock("a")
        self.assertEqual(self.lock("b", shared.try_lock), 2)
        self.host.break_lock("van")
        self.host.break_lock("never")
        self.assertEqual(self.host.lock_holder("van"), None)
        self.assertEqual(self.lock("a"), 3)

    def test_nothing_of_an_event_that_waits_is_kept(self):
        self.lock("a")

        def waits(_):
            cells["seen"] = b"1"
            shared.set("seen", b"1")
            shared.lock("other", 60)
            shared.lock("van", 60)

        def stubborn(e):
            try:
                waits(e)
            except BaseException:
                pass

        for handler in (waits, stubborn):
            with self.assertRaises(Waits) as caught:
                self.host.deliver(handler, event("a", key="b"))
            self.assertEqual((str(caught.exception), caught.exception.lock), ('waits for lock "van"', "van"))
            self.assertIsInstance(caught.exception, Retry)
            self.assertEqual((self.host.cells.get("b"), self.host.shared), (None, {}))
            self.assertEqual(self.host.lock_holder("other"), None)

    def test_how_long_a_lock_is_held(self):
        asked = []

        def check(_):
            shared.host.lock = shared.host.try_lock = lambda name, ttl_ms: asked.append(ttl_ms) or 1
            for ttl in (60, 0.5, 0, timedelta(hours=1), timedelta(microseconds=1_999)):
                shared.lock("van", ttl)
                shared.try_lock("van", ttl)
            for lock in (shared.lock, shared.try_lock):
                with self.assertRaisesRegex(ValueError, "lock 'van' is held for zero seconds or more, not for -1.0"):
                    lock("van", -1)

        self.host.deliver(check, event("a"))
        self.assertEqual(asked, [each for ms in (60_000, 500, 0, 3_600_000, 1) for each in (ms, ms)])


if __name__ == "__main__":
    unittest.main()
