"""Of what a fault says of itself."""

import unittest

from weir_guest.entry import TRACEBACK_CHARS_MAX, describe


def failing(depth, message="no"):
    if depth:
        failing(depth - 1, message)
    raise ValueError(message)


def described(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return describe(error)
    raise AssertionError("it does not fail")


class Tracebacks(unittest.TestCase):
    def test_it_reads_like_pythons_own(self):
        text = described(failing, 0)
        self.assertTrue(text.startswith("Traceback (most recent call last):\n  File "), text)
        self.assertIn("raise ValueError(message)", text)
        self.assertTrue(text.endswith("\nValueError: no"), text)

    def test_a_cause_is_told(self):
        def wrapped():
            try:
                failing(0)
            except ValueError as error:
                raise KeyError("outer") from error

        text = described(wrapped)
        self.assertIn("ValueError: no", text)
        self.assertIn("direct cause", text)
        self.assertTrue(text.endswith("KeyError: 'outer'"), text)

    def test_a_long_one_keeps_its_end(self):
        for text in (described(failing, 500), described(failing, 500, "x" * 10_000)):
            self.assertLessEqual(len(text), TRACEBACK_CHARS_MAX)
            self.assertIn("ValueError: ", text)


if __name__ == "__main__":
    unittest.main()
