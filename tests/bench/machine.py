"""When, where and with what a work was measured: facts of the tables, as lines of Markdown."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from service import __version__
from service.parsing import COMPILED
from tests.bench.ground import NODE, ROOT, program

PACKAGES: Final = ("imapflow", "mailparser", "nodemailer", "@nats-io/transport-node", "@nats-io/jetstream")
LIBRARIES: Final = ("nats-py", "aioimaplib", "aiosmtplib", "msgspec", "uvloop", "imapclient")


def measured(runs: int) -> str:
    """What stands under a work's table: works are measured in runs of their own."""
    turns = "1 turn" if runs == 1 else f"medians of {runs} turns"
    machine = f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB"
    python = f"Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {_commit()}, {python}, {machine}, {turns}"


def versions() -> list[str]:
    """One line each: mailbus and its libraries, the servers, the peers."""
    node = ", ".join(f"{name.removeprefix('@nats-io/')} {_node_version(name)}" for name in PACKAGES)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    servers = (
        f"{_says('nats-server', '--version')}, Dovecot {_says('dovecot', '--version').partition(' ')[0]},"
        f" {_says('mbsync', '--version')}, fetchmail {_says('fetchmail', '--version').split()[4].partition('+')[0]},"
        f" Postfix {_says('postconf', '-d', '-h', 'mail_version')}"
    )
    compiled = "compiled" if COMPILED else "not compiled"
    return [
        f"- mailbus {__version__}, {compiled}, Python {platform.python_version()}: {libraries}",
        f"- {servers}, Linux {platform.release().partition('-')[0]}",
        f"- Node {_says('node', '--version').removeprefix('v')}: {node}",
    ]


def _says(name: str, *arguments: str) -> str:
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout or done.stderr).strip().partition("\n")[0].replace(": ", " ")


@cache
def _commit() -> str:
    # Once: the tables of the first works change the page, and with it what git says.
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"


def _node_version(package: str) -> str:
    manifest = json.loads((NODE / "node_modules" / package / "package.json").read_text(encoding="utf-8"))
    return str(manifest["version"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _memory_gb() -> int:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(pages / 2**30)
