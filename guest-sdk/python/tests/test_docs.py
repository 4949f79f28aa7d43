"""Of the documentation: what it shows in Python runs, and does what it says."""

import re
import unittest
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"

#: Pages whose examples are whole: each is a program that checks itself.
PAGES = ("patterns/locks.md",)


class Examples(unittest.TestCase):
    def test_examples_do_what_they_say(self):
        for page in PAGES:
            examples = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
            self.assertTrue(examples, page)
            for example in examples:
                with self.subTest(page=page):
                    exec(compile(example, page, "exec"), {"__name__": "example"})


if __name__ == "__main__":
    unittest.main()
