"""`python -m tools.compile`: what ingest does for every mail, compiled in place by mypyc where there is a C compiler.

The same source runs either way; compiled, parsing takes 0.6 of the time for a mail of 33 KB and half for a small one.
Without a compiler, or without Python's headers, nothing is compiled and nothing is wrong. What is compiled is pure: no
I/O, no event loop, no msgspec struct (mypyc drops a class's options without a word). `--drop` removes what was compiled
of another source than stands there now, and compiles nothing.
"""

import hashlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[1]
# Of which sources and by which Python the compiled modules are.
STAMP: Final = ROOT / ".compiled"
# What each mail passes through.
COMPILED: Final = (
    "service/bus/frames.py",
    "service/bus/guard.py",
    "service/contract/codec.py",
    "service/contract/envelope.py",
    "service/contract/ids.py",
    "service/contract/listed.py",
    "service/contract/media.py",
    "service/imap/grammar.py",
    "service/imap/message.py",
    "service/imap/wire.py",
    "service/ingest/marks.py",
    "service/ingest/notes.py",
    "service/ingest/surveyed.py",
    "service/meaning/*.py",
    "service/mime/*.py",
    "service/outbound/blame.py",
    "service/outbound/proof.py",
    "service/outbound/replies.py",
    "service/parsing/frames.py",
    "service/parsing/make.py",
    "service/smtp/state.py",
    "service/smtp/wire.py",
)


def sources() -> list[str]:
    """The files that are compiled, relative to the root."""
    found = [path for pattern in COMPILED for path in ROOT.glob(pattern) if path.name != "__init__.py"]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def digest() -> str:
    """What the stamp says where the compiled modules are of these sources."""
    whole = hashlib.sha256(sys.version.encode())
    for name in [*sources(), "tools/compile.py", "requirements.lock"]:
        whole.update((ROOT / name).read_bytes())
    return whole.hexdigest()


def is_stale() -> bool:
    """Whether there are compiled modules of another source."""
    return bool(modules()) and not (STAMP.exists() and STAMP.read_text() == digest())


def modules() -> list[Path]:
    """The compiled modules that are there."""
    return [*ROOT.glob("mailbus__mypyc*.so"), *ROOT.glob("service/**/*.so")]


def drop() -> None:
    """Remove the compiled modules."""
    STAMP.unlink(missing_ok=True)
    for module in modules():
        module.unlink()


def missing() -> str | None:
    """What is missing, None where a module can be compiled."""
    cc = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(cc) is None:
        return f"no C compiler ({cc}): apt-get install gcc libc6-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python.h: apt-get install python3-dev"
    return None


def compile_all() -> None:
    """Compile in place. mypy and setuptools are imported only here: without a compiler they need not be there."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(ROOT)
    with TemporaryDirectory(prefix="mailbus-compile-") as folder:
        options = ["--config-file", "pyproject.toml", *sources()]
        # -O1: as fast as -O3, whose code is twice as large, and sooner there.
        extensions = mypycify(options, opt_level="1", debug_level="0", group_name="mailbus", target_dir=folder)
        words = ["--quiet", "build", "--build-base", folder, "build_ext", "--inplace"]
        setup(name="mailbus-compiled", packages=[], ext_modules=extensions, script_args=words)
    STAMP.write_text(digest())


def main() -> int:
    """The exit code."""
    if is_stale():
        drop()
    if "--drop" in sys.argv[1:] or modules():
        return 0
    if (why := missing()) is not None:
        print(f"not compiled, parsing takes twice as long: {why}")
        return 0
    print("compiling (half a minute) …")
    compile_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
