"""`python -m tools.compile`: what ingest does for every mail, compiled in place by mypyc where there is a C compiler.

The same source runs either way: compiled it takes half the time. Without a compiler, or without Python's headers,
nothing is compiled and nothing is wrong. What is compiled is pure: no I/O, no event loop.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
# Rooms and files that each mail passes through.
COMPILED: Final = (
    "service/bus/frames.py",
    "service/bus/guard.py",
    "service/contract/codec.py",
    "service/contract/envelope.py",
    "service/contract/ids.py",
    "service/imap/grammar.py",
    "service/imap/wire.py",
    "service/mime/*.py",
    "service/parsing/frames.py",
    "service/parsing/make.py",
)


def sources() -> list[str]:
    """The files that are compiled, relative to the root."""
    found = [path for pattern in COMPILED for path in ROOT.glob(pattern) if path.name != "__init__.py"]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def compiler_or_none() -> str | None:
    """What is missing, None where a module can be compiled."""
    cc = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(cc) is None:
        return f"no C compiler ({cc}): apt-get install gcc"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python.h: apt-get install python3-dev"
    return None


def main() -> int:
    if missing := compiler_or_none():
        print(f"not compiled, runs at half the speed: {missing}")
        return 0
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(ROOT)
    options = ["--config-file", "pyproject.toml", *sources()]
    modules = mypycify(options, opt_level="3", debug_level="0", group_name="mailbus")
    setup(name="mailbus-compiled", packages=[], ext_modules=modules, script_args=["--quiet", "build_ext", "--inplace"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
