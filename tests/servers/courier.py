"""Real Courier POP3 on loopback: its program that serves a maildrop, behind a door of ours: any user, the password.

Courier's own door asks a daemon of its own for passwords, which needs root and a place in /run. Its programs are
unpacked beside Dovecot's and Cyrus's, of whose packages Debian wants one, into UNPACKED.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.tasks import TaskGroup
from tests.servers.imap_server import PASSWORD

UNPACKED = Path("/usr/local/lib/courier")
PROGRAM = UNPACKED / "usr/lib/courier/courier/courierpop3d"
LIBRARIES = [UNPACKED / "usr/lib", *(UNPACKED / "usr/lib").glob("*-linux-gnu*")]
MISSING = (
    "Courier is missing: cd /tmp && apt-get download courier-pop courier-authlib libcourier-unicode4"
    f" && for package in courier-pop_*.deb courier-authlib_*.deb libcourier-unicode4_*.deb; do dpkg -x $package"
    f" {UNPACKED}; done"
)
CHUNK_BYTES = 65536


class Courier:
    """One server; a user's mail lies in a Maildir of that name under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pop3 = 0
        self._count = 0

    def maildir(self, user: str) -> Path:
        """Where a user's mail lies."""
        folder = self.root / user
        for name in ("cur", "new", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return folder

    def append(self, user: str, bodies: list[bytes]) -> None:
        """Mail arrives, in this order."""
        for body in bodies:
            self._count += 1
            (self.maildir(user) / "new" / f"{1_600_000_000 + self._count}.M{self._count}.host").write_bytes(
                body.replace(b"\r\n", b"\n")
            )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: the door, and after the password Courier."""
        user = ""
        writer.write(b"+OK Hello there.\r\n")
        while line := (await reader.readline()).decode():
            word, _, argument = line.strip().partition(" ")
            if word == "CAPA":
                writer.write(b"+OK Here's what I can do:\r\nTOP\r\nUSER\r\nPIPELINING\r\nUIDL\r\n.\r\n")
            elif word == "USER":
                user = argument
                writer.write(b"+OK Password required.\r\n")
            elif word == "PASS" and argument == PASSWORD:
                await self._serve(user, reader, writer)
                break
            else:
                writer.write(b"-ERR Login failed.\r\n")
        writer.close()

    async def _serve(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths = ":".join(map(str, LIBRARIES))
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM),
            str(self.maildir(user)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"AUTHENTICATED": user, "HOME": str(self.root), "LD_LIBRARY_PATH": paths},
        )
        to, out = process.stdin, process.stdout
        assert to is not None
        assert out is not None

        async def hear() -> None:
            while data := await reader.read(CHUNK_BYTES):
                to.write(data)
            to.close()

        try:
            async with TaskGroup() as group:
                hearing = group.create_task(hear(), name="hear")
                while data := await out.read(CHUNK_BYTES):
                    writer.write(data)
                hearing.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def courier() -> AsyncIterator[Courier]:
    """A Courier with empty maildrops."""
    if not PROGRAM.exists():
        pytest.fail(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="mailbus-courier-"))
    made = Courier(folder)
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.pop3 = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
