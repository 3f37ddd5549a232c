"""A scripted relay: aiosmtpd in the test's own loop, on a random port, that does on command what relays do.

Every message that was accepted is kept. Scripts are per recipient or per stage; `cut` drops the connection.
"""

import asyncio
import os
import re
import shutil
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

WAIT_LIMIT_S: Final = 20.0


@dataclass(slots=True)
class Received:
    """One message that the relay took, as it came over the wire (dots unstuffed)."""

    mail_from: str
    rcpt_to: list[str]
    content: bytes
    options: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """What the relay does. Strings are whole replies; a stage in `cut` drops the connection there.

    cut: connect, mail, rcpt, data (354 not yet said), body (while the body comes), before_reply (message taken,
    answer lost), refused_reply (message not taken, connection lost after the dot). Each is used up by one connection
    unless `cut_always`. `hold` is awaited before the answer to the dot.
    """

    mail: str | None = None
    rcpt: dict[str, list[str]] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    cut_always: bool = False
    hold: asyncio.Event | None = None
    pipelining: bool = True
    eight_bit: bool = True


class ScriptedRelay:
    """Listens on 127.0.0.1:`port`."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        password: str | None = None,
        auth_reply: str | None = None,
        smtputf8: bool = True,
        size: int = 50_000_000,
        handler: Callable[["ScriptedRelay"], "Handler"] | None = None,
    ) -> None:
        self.script = Script()
        self.messages: list[Received] = []
        self.connections = 0
        self.logins = 0
        self.data_commands = 0
        self.commands: list[str] = []
        self.port = 0
        self._tls, self._starttls = tls, starttls
        self._password, self._auth_reply = password, auth_reply
        self._smtputf8, self._size = smtputf8, size
        self._handler = handler or Handler
        self._server: asyncio.Server | None = None
        self._open: set[Any] = set()
        self._arrived = asyncio.Event()

    async def start(self) -> None:
        """Listen; also again after `stop`, on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._factory, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for one in list(self._open):
            if one.transport is not None:
                # Python 3.11.2: of a TLS transport that was closed twice nothing is left to abort.
                with suppress(AttributeError):
                    one.transport.abort()
            task = getattr(one, "_handler_coroutine", None)
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
        self._open.clear()

    async def received(self, count: int, limit_s: float = WAIT_LIMIT_S) -> list[Received]:
        """Wait until so many messages came."""
        async with asyncio.timeout(limit_s):
            while len(self.messages) < count:
                await self._arrived.wait()
                self._arrived.clear()
        return self.messages

    @property
    def wants_login(self) -> bool:
        """Whether AUTH is offered."""
        return self._password is not None

    def cut_now(self, stage: str) -> bool:
        """Whether the script drops the connection here."""
        if stage not in self.script.cut:
            return False
        if not self.script.cut_always:
            self.script.cut.remove(stage)
        return True

    def _factory(self) -> SMTP:
        relay = self
        self.connections += 1

        class Connection(SMTP):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                relay._open.add(self)
                if relay.cut_now("connect"):
                    transport.abort()

            def connection_lost(self, error: Exception | None) -> None:
                relay._open.discard(self)
                super().connection_lost(error)

            async def smtp_DATA(self, arg: str) -> None:
                relay.data_commands += 1
                if relay.cut_now("data"):
                    _abort(self)
                    return
                if relay.cut_now("body"):
                    await self.push("354 go ahead")
                    await self._reader.readline()
                    _abort(self)
                    return
                await super().smtp_DATA(arg)

            async def smtp_RSET(self, arg: str) -> None:
                relay.commands.append("RSET")
                await super().smtp_RSET(arg)

        with warnings.catch_warnings():
            # AUTH in clear text is what some of these tests are about.
            warnings.simplefilter("ignore", UserWarning)
            return self._connection(Connection)

    def _connection(self, kind: type[SMTP]) -> SMTP:
        return kind(
            self._handler(self),
            hostname="relay.test",
            ident="scripted",
            data_size_limit=self._size,
            enable_SMTPUTF8=self._smtputf8,
            decode_data=False,
            tls_context=self._starttls,
            require_starttls=self._starttls is not None,
            auth_required=self._password is not None,
            auth_require_tls=self._starttls is not None,
            authenticator=self._authenticate if self._password is not None else None,
            auth_exclude_mechanism=None,
            loop=asyncio.get_running_loop(),
        )

    def _authenticate(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.logins += 1
        if self._auth_reply is not None:
            return AuthResult(success=False, handled=False, message=self._auth_reply)
        right = data.password.decode() == self._password
        return AuthResult(success=right, handled=False)


class Handler:
    """aiosmtpd's hooks."""

    def __init__(self, relay: ScriptedRelay) -> None:
        self.relay = relay

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        hidden = [] if self.relay.script.eight_bit else ["8BITMIME"]
        hidden += [] if self.relay.wants_login else ["AUTH "]
        shown = [line for line in responses if not any(name in line for name in hidden)]
        if self.relay.script.pipelining:
            shown.insert(1, "250-PIPELINING")
        return shown

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.relay.cut_now("mail"):
            _abort(server)
            return "451 gone"
        if self.relay.script.mail is not None:
            return self.relay.script.mail
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.relay.cut_now("rcpt"):
            _abort(server)
            return "451 gone"
        replies = self.relay.script.rcpt.get(address)
        if replies:
            said = replies.pop(0) if len(replies) > 1 else replies[0]
            if not said.startswith("2"):
                return said
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        relay = self.relay
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        if relay.cut_now("refused_reply"):
            _abort(server)
            return "451 gone"
        said = relay.script.data.pop(0) if relay.script.data else "250 2.0.0 queued"
        if said.startswith("2"):
            relay.messages.append(
                Received(envelope.mail_from or "", list(envelope.rcpt_tos), content, list(envelope.mail_options))
            )
            relay._arrived.set()
        if relay.script.hold is not None:
            await relay.script.hold.wait()
        if relay.cut_now("before_reply"):
            _abort(server)
        return said

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, ConnectionError | asyncio.CancelledError):
            raise error
        return "421 gone"


def _abort(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()


RelayMaker = Callable[..., Awaitable[ScriptedRelay]]


@pytest.fixture
async def make_relay() -> AsyncIterator[RelayMaker]:
    """A maker of relays, stopped with the test."""
    made: list[ScriptedRelay] = []

    async def make(**arguments: Any) -> ScriptedRelay:
        relay = ScriptedRelay(**arguments)
        await relay.start()
        made.append(relay)
        return relay

    yield make
    for relay in made:
        await relay.stop()


@pytest.fixture
async def relay(make_relay: RelayMaker) -> ScriptedRelay:
    """A relay in clear text that takes everything."""
    return await make_relay()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority of the test run's own."""
    return trustme.CA()


class Sink:
    """Postfix's smtp-sink: takes everything and counts."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self._process = process
        self._said = b""

    async def messages(self, count: int) -> int:
        """How many messages it counted, once they are `count` or more and the session has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_LIMIT_S):
            while True:
                said = re.findall(rb"quit=(\d+) mesg=(\d+)", self._said)
                if said and int(said[-1][0]) > 0 and int(said[-1][1]) >= count:
                    return int(said[-1][1])
                self._said += await self._process.stdout.read(4096)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """An smtp-sink on a free port."""
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.fail("no smtp-sink: apt-get install postfix", pytrace=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        program, "-c", *user, f"127.0.0.1:{port}", "16", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(WAIT_LIMIT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                break
        yield Sink(port, process)
    finally:
        process.terminate()
        await process.wait()
