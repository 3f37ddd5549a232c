"""Fixtures by family: each file of tests/servers/ is a plugin. The header prints the versions of the real parts."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from service.parsing import COMPILED
from tools.compile import is_stale

HERE = Path(__file__).parent

# Hundreds of processes import the same: whatever the environment says, they do not each compile it for themselves.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Before any of them imports another.
pytest.register_assert_rewrite("tests.servers")
pytest_plugins = sorted(
    f"tests.servers.{file.stem}" for file in HERE.glob("servers/*.py") if not file.stem.startswith(("_", "test_"))
)


def _says(*command: str) -> str:
    """The first line that a program says of its version."""
    found = shutil.which(command[0], path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin:/usr/local/bin")
    if not found:
        return "missing"
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout or done.stderr).strip().partition("\n")[0] or "?"


def pytest_configure() -> None:
    """What was compiled of another source would be tested in the place of the source."""
    if is_stale():
        raise pytest.UsageError("the compiled modules are not of this source: make compiled")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the long tests, so that none is left with a row of them at the end.

    pytest-xdist gives each an equal part of the list, and to one that is done some of another's last ones.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    whole = [item for item in items if HERE / "whole" in item.path.parents]
    others = iter([item for item in items if HERE / "whole" not in item.path.parents])
    parts = [whole[number::workers] for number in range(workers)]
    share = -(-len(items) // workers)
    items[:] = [item for part in parts for item in [*part, *islice(others, share - len(part))]]


def pytest_report_header() -> list[str]:
    """What took part in this run."""
    libraries = ("nats-py", "aioimaplib", "aiosmtplib", "msgspec", "uvloop")
    python = f"python {platform.python_version()}, {'compiled' if COMPILED else 'not compiled'}"
    parts = f"{python}, {_says('nats-server', '--version')}, dovecot {_says('dovecot', '--version')}"
    return [
        f"real parts: {parts}, {_says('/usr/lib/cyrus/bin/master', '-V')}",
        "libraries: " + ", ".join(f"{name} {version(name)}" for name in libraries),
    ]
