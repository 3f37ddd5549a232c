"""One connection to a relay: connect, upgrade, log in, and one transaction after the other.

The only file that knows aiosmtplib: it connects (TCP, TLS, STARTTLS, EHLO, AUTH); our protocol under its client
takes over for the transaction, pipelined and per recipient. The private names used stand in
tests/smtp/test_aiosmtplib_pins.py. Used by pool.py. RFC 5321, 2920 (PIPELINING), 3207 (STARTTLS), 4954 (AUTH).
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from service.clock import Clock
from service.contract import Security
from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Transient, verdict_of
from service.observe import step
from service.smtp.errors import DotUnanswered, RelayUnreachable
from service.smtp.options import SmtpOptions
from service.smtp.state import Seen, Stage, after
from service.smtp.wire import Reply, ReplyParser, mail_command, make_reply, rcpt_command, stuffed
from service.tasks import TaskGroup

BLOCK_BYTES: Final = 64 * 1024
# RFC 4954 section 6: 504 is the one answer after which another mechanism may do.
MECHANISM_UNKNOWN: Final = 504
SERVICE_CLOSING: Final = 421  # RFC 5321 3.8: the connection ends with it
START_INPUT: Final = 354
BeforeDot = Callable[[Mapping[str, Reply]], Awaitable[None]]


class _Protocol(SMTPProtocol):
    """Lock-step replies for aiosmtplib while it connects, a queue of replies for our transaction after that."""

    def __init__(self, lost: Callable[[SMTPProtocol], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop(), connection_lost_callback=lost)
        self._parser: ReplyParser | None = None
        self._replies: deque[Reply] = deque()
        self._expected = 0
        self._broken: PeerError | None = None
        self._gone = False
        self._news = asyncio.Event()

    def take_over(self) -> None:
        """From here on replies are ours."""
        self._parser = ReplyParser()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            if not self._response_pending:
                # RFC 3207 section 6 and RFC 2920: what nobody asked for may be injected; never pair it with a command.
                self._break("the relay spoke out of turn")
                return
            super().data_received(data)
            if self._buffer and self._response_waiter is not None and self._response_waiter.done():
                self._break("the relay sent more than the reply it was asked for")
            return
        try:
            for reply in self._parser.feed(data):
                self._replies.append(reply)
        except PeerError as exc:
            self._break(exc.what)
        if len(self._replies) > self._expected:
            self._break("the relay sent more replies than it got commands")
        self._news.set()

    def _break(self, what: str) -> None:
        self._broken = self._broken or PeerError(what)
        self._news.set()
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def eof_received(self) -> bool:
        self._gone = True
        self._news.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._news.set()
        super().connection_lost(exc)

    @property
    def broken(self) -> PeerError | None:
        """What the relay did against the protocol."""
        return self._broken

    @property
    def spoke(self) -> bool:
        """Whether a reply is there to be read."""
        return bool(self._replies)

    @property
    def alive(self) -> bool:
        """Whether more may be sent and nothing unasked came."""
        return not self._gone and self._broken is None and self.is_connected and not self.spoke

    def send(self, data: bytes | memoryview, replies: int) -> None:
        """Write, and expect so many replies for it. Raises Transient."""
        if self._gone or not isinstance(self.transport, asyncio.WriteTransport) or self.transport.is_closing():
            raise self._broken or Transient("the relay closed the connection")
        self._expected += replies
        self.transport.write(data)

    async def drain(self, timeout_s: float) -> None:
        """Until there is room to write. Raises Transient."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain_helper()
        except TimeoutError as exc:
            raise Transient(f"the relay took nothing for {timeout_s:.0f} s") from exc
        except OSError as exc:
            raise self._broken or Transient("the relay closed the connection") from exc

    async def reply(self, timeout_s: float) -> Reply:
        """The next reply. Raises Transient, PeerError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._replies:
                    if self._broken is not None:
                        raise self._broken
                    if self._gone:
                        raise Transient("the relay closed the connection")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as exc:
            raise Transient(f"no reply from the relay in {timeout_s:.0f} s") from exc
        self._expected -= 1
        return self._replies.popleft()


class _Client(aiosmtplib.SMTP):
    """aiosmtplib with our protocol under it, no DNS look-up of our own name, and one try at AUTH a connection."""

    made: _Protocol | None = None  # outlives close(), to tell what the relay did wrong

    async def _get_default_local_hostname(self) -> str:
        return "[127.0.0.1]"

    async def _create_connection(self, timeout: float | None) -> aiosmtplib.SMTPResponse:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: _Protocol(self._on_connection_lost),
            self.hostname or "",
            self.port or 0,
            ssl=self.tls_context if self.use_tls else None,
            ssl_handshake_timeout=timeout if self.use_tls else None,
        )
        self.protocol = self.made = protocol
        self.transport = transport
        # RFC 5321 4.1.1.1: an address literal where there is no name to give; names inside a cluster mean nothing.
        host = transport.get_extra_info("sockname")[0]
        self.local_hostname = f"[IPv6:{host.partition('%')[0]}]" if ":" in host else f"[{host}]"
        response = await protocol.read_response(timeout=timeout)
        if response.code != aiosmtplib.SMTPStatus.ready:
            raise aiosmtplib.SMTPConnectResponseError(response.code, response.message)
        return response

    async def authenticate(self, username: str, password: str) -> None:
        """AUTH by the best mechanism both know; another one only where the relay says it does not know this one.

        aiosmtplib's own login tries every mechanism after a refusal: three wrong passwords a connection.
        """
        encrypted = self.get_transport_info("sslcontext") is not None
        wanted = ("plain", "login", "cram-md5") if encrypted else ("cram-md5", "plain", "login")
        ways = {"plain": self.auth_plain, "login": self.auth_login, "cram-md5": self.auth_crammd5}
        offered = [name for name in wanted if name in self.server_auth_methods]
        if not offered:
            raise Permanent(
                "the relay offers no way to log in that mailbus knows (PLAIN, LOGIN, CRAM-MD5)",
                remedy="outgoing.smtp.login: false, or another port or security",
            )
        for i, name in enumerate(offered):
            try:
                await ways[name](username.encode(), password.encode())
            except aiosmtplib.SMTPAuthenticationError as exc:
                if exc.code == MECHANISM_UNKNOWN and i + 1 < len(offered):
                    continue
                raise
            return


class Session:
    """One connection. Not for two transactions at once."""

    def __init__(self, client: _Client, protocol: _Protocol, options: SmtpOptions, clock: Clock) -> None:
        self._client = client
        self._protocol = protocol
        self._options = options
        self._clock = clock
        self._extensions = {name.lower(): value for name, value in client.esmtp_extensions.items()}
        self._stage = Stage.READY
        self._dirty = False
        self.used_at = clock.monotonic()
        self.transactions = 0

    @classmethod
    async def open(cls, options: SmtpOptions, *, clock: Clock) -> "Session":
        """Connect, protect, log in, within one budget. Raises RelayUnreachable, AuthRefused, Permanent (TLS)."""
        tls = options.tls
        if tls is None and options.security is not Security.NONE:
            tls = await asyncio.to_thread(ssl.create_default_context)
        client = _Client(
            hostname=options.host,
            port=options.port,
            timeout=options.timeouts.connect_s,
            use_tls=options.security is Security.TLS,
            start_tls=options.security is Security.STARTTLS,  # never None: that would fall back to clear text
            tls_context=tls,
        )
        try:
            async with asyncio.timeout(options.timeouts.connect_s):
                await client.connect()
                if client.is_ehlo_or_helo_needed:
                    await client._ehlo_or_helo_if_needed()
                if options.login:
                    await client.authenticate(options.username or "", options.password or "")
        except BaseException as exc:
            _abort(client)
            if isinstance(exc, Exception):
                _raise_verdict(exc, client, options)
            raise
        protocol = client.protocol
        if not isinstance(protocol, _Protocol) or not protocol.is_connected:
            raise RelayUnreachable("the relay closed the connection", where=options.where)
        protocol.take_over()
        return cls(client, protocol, options, clock)

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin."""
        return self._stage is Stage.READY and self._protocol.alive

    def abort(self) -> None:
        """Drop the connection; before the dot, the relay forgets the message."""
        self._stage = after(self._stage, Seen.LOST)
        _abort(self._client)

    def quit(self) -> None:
        """Say goodbye without waiting for an answer."""
        with suppress(Transient):
            self._protocol.send(b"QUIT\r\n", 1)
        self._stage = after(self._stage, Seen.LOST)
        self._client.close()

    async def transact(
        self, mail_from: str, rcpt_to: Sequence[str], data: bytes, *, before_final_dot: BeforeDot
    ) -> dict[str, Reply]:
        """Deliver one message; gives the reply that settles each recipient.

        `before_final_dot` runs while the body streams and is given the recipients refused so far; the dot waits for
        it, and whatever it raises drops the connection. Raises Transient before the dot, DotUnanswered after it.
        """
        parameters, refusal = self._parameters((mail_from, *rcpt_to), data)
        if refusal is not None:
            return dict.fromkeys(rcpt_to, refusal)
        try:
            commands = [mail_command(mail_from, parameters), *(rcpt_command(address) for address in rcpt_to)]
            body = stuffed(data) if len(data) < BLOCK_BYTES * 16 else await asyncio.to_thread(stuffed, data)
        except Permanent as exc:
            return dict.fromkeys(rcpt_to, make_reply(554, [f"5.6.0 {exc.what}"]))
        self.transactions += 1
        refused: dict[str, Reply] = {}
        try:
            accepted = await self._envelope(commands, rcpt_to, refused)
            if not accepted:
                return refused
            early = await self._body(body, refused, before_final_dot)
            final = early or await self._dot()
        except DotUnanswered:
            raise
        except MailbusError as exc:
            stage = self._stage
            self.abort()
            if stage is Stage.DOT:
                raise DotUnanswered(exc.what, where=self._options.where, refused=refused) from exc
            exc.where = exc.where or self._options.where
            raise
        except BaseException:
            self.abort()
            raise
        self.used_at = self._clock.monotonic()
        if early or final.code == SERVICE_CLOSING:
            self.abort()
        return refused | dict.fromkeys(accepted, final)

    def _parameters(self, addresses: Sequence[str], data: bytes) -> tuple[dict[str, str | None], Reply | None]:
        """MAIL FROM's parameters, or the refusal that this relay would have to give."""
        parameters: dict[str, str | None] = {}
        if "size" in self._extensions:
            limit = self._extensions["size"].strip()
            # RFC 1870 section 4: 0 or nothing is no limit.
            if limit.isdigit() and 0 < int(limit) < len(data):
                return {}, make_reply(552, [f"5.3.4 {len(data)} bytes; the relay takes {int(limit)}"])
            parameters["SIZE"] = str(len(data))
        if not data.isascii():
            if "8bitmime" not in self._extensions:
                return {}, make_reply(554, ["5.6.3 the message holds 8-bit bytes and the relay has no 8BITMIME"])
            parameters["BODY"] = "8BITMIME"
        if not all(address.isascii() for address in addresses):
            if "smtputf8" not in self._extensions:
                return {}, make_reply(553, ["5.6.7 an address is not ASCII and the relay has no SMTPUTF8"])
            parameters["SMTPUTF8"] = None
        return parameters, None

    async def _envelope(self, commands: list[bytes], rcpt_to: Sequence[str], refused: dict[str, Reply]) -> list[str]:
        """MAIL, RCPT, DATA; fills `refused`, gives who was accepted, in stage BODY if anybody was."""
        timeouts = self._options.timeouts
        first = [b"RSET\r\n"] if self._dirty else []
        self._stage = after(self._stage, Seen.MAIL)
        # RFC 2920 3.1: RSET, MAIL, RCPT may stand anywhere in a group, DATA only at its end.
        pipelined = "pipelining" in self._extensions
        if pipelined:
            group = [*first, *commands, b"DATA\r\n"]
            self._protocol.send(b"".join(group), len(group))
        if first and not (await self._ask(first[0], pipelined, timeouts.mail_s)).accepted:
            raise PeerError("RSET was refused")
        self._dirty = True
        said = await self._ask(commands[0], pipelined, timeouts.mail_s)
        mail = _settling(said)
        accepted: list[str] = []
        for address, command in zip(rcpt_to, commands[1:], strict=True):
            if said.code == SERVICE_CLOSING or (mail is not None and not pipelined):
                refused[address] = said
                continue
            said = await self._ask(command, pipelined, timeouts.rcpt_s)
            refusal = mail or _settling(said)
            if refusal is None:
                accepted.append(address)
            else:
                refused[address] = refusal
        if said.code == SERVICE_CLOSING:
            # The service closes: whoever was accepted has nothing yet.
            refused.update(dict.fromkeys(accepted, said))
            self._stage = after(self._stage, Seen.REFUSED)
            self.abort()
            return []
        return await self._data(pipelined, accepted, refused)

    async def _data(self, pipelined: bool, accepted: list[str], refused: dict[str, Reply]) -> list[str]:
        if not accepted and not pipelined:
            self._stage = after(self._stage, Seen.REFUSED)
            return []
        said = await self._ask(b"DATA\r\n", pipelined, self._options.timeouts.data_s)
        if said.code == START_INPUT:
            self._stage = after(self._stage, Seen.GO_AHEAD)
            if not accepted:
                # RFC 2920 3.1 lets one send a lone dot here; dropping the connection cannot deliver an empty message.
                self.abort()
            return accepted
        if said.accepted or said.code < 400:
            raise PeerError(f"DATA was answered with {said.code}")
        refused.update(dict.fromkeys(accepted, said))
        self._stage = after(self._stage, Seen.REFUSED)
        if said.code == SERVICE_CLOSING:
            self.abort()
        return []

    async def _ask(self, command: bytes, pipelined: bool, timeout_s: float) -> Reply:
        if not pipelined:
            self._protocol.send(command, 1)
        return await self._protocol.reply(timeout_s)

    async def _body(self, body: bytes, refused: Mapping[str, Reply], before_final_dot: BeforeDot) -> Reply | None:
        """Everything but the dot, while `before_final_dot` runs; gives a refusal that came before its time."""
        try:
            async with TaskGroup() as group:
                group.create_task(_awaited(before_final_dot(refused)), name="before_final_dot")
                group.create_task(self._stream(body), name="body")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        if not self._protocol.spoke:
            return None
        said = await self._protocol.reply(0)
        if not (said.transient or said.refused):
            raise PeerError(f"the message was answered with {said.code} before its end")
        return said

    async def _stream(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(body), BLOCK_BYTES):
            # The one reply that may come before the dot is a refusal of all of it.
            self._protocol.send(view[start : start + BLOCK_BYTES], 1 if start == 0 else 0)
            await self._protocol.drain(self._options.timeouts.block_s)
            if self._protocol.spoke:
                return

    async def _dot(self) -> Reply:
        # From here on a lost connection proves nothing: the stage changes before the first byte goes.
        step("smtp.dot")
        if not self._protocol.alive:
            raise self._protocol.broken or Transient("the relay closed the connection")
        self._stage = after(self._stage, Seen.DOT)
        self._protocol.send(b".\r\n", 0)
        step("smtp.dot.sent")
        said = await self._protocol.reply(self._options.timeouts.final_s)
        if not (said.accepted or said.transient or said.refused):
            raise PeerError(f"the message was answered with {said.code}")
        self._stage = after(self._stage, Seen.ANSWERED)
        self._dirty = not said.accepted
        return said


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _settling(said: Reply) -> Reply | None:
    """The reply if it refuses; None if it accepts. Raises PeerError on anything else."""
    if said.accepted:
        return None
    if said.transient or said.refused:
        return said
    raise PeerError(f"an envelope command was answered with {said.code}")


def _abort(client: _Client) -> None:
    transport = client.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
    client.close()


def _raise_verdict(exc: Exception, client: _Client, options: SmtpOptions) -> NoReturn:
    """Whatever connecting may raise, as one of the verdicts."""
    where = options.where
    if client.made is not None and client.made.broken is not None:
        exc = client.made.broken
    match exc:
        case PeerError():
            raise RelayUnreachable(exc.what, where=where) from exc
        case MailbusError():
            exc.where = exc.where or where
            raise exc
        case aiosmtplib.SMTPAuthenticationError() if 400 <= exc.code < 500:
            # RFC 4954 section 6: 454 is a temporary failure, and no word about the password.
            raise RelayUnreachable(f"the relay put AUTH off: {_said(exc)}", where=where) from exc
        case aiosmtplib.SMTPAuthenticationError():
            raise AuthRefused(
                f"the relay refuses the credentials: {_said(exc)}", where=where, remedy="set a new password"
            ) from exc
        case aiosmtplib.SMTPResponseException():
            raise RelayUnreachable(f"the relay said {_said(exc)}", where=where) from exc
        case ssl.SSLCertVerificationError():
            raise Permanent(
                f"TLS: {exc.verify_message}", where=where, remedy="correct host, or name the authority with `ca`"
            ) from exc
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            raise RelayUnreachable("the relay closed the connection during TLS", where=where) from exc
        case ssl.SSLError():
            raise Permanent(f"TLS: {exc.reason or exc}", where=where, remedy="check port and security") from exc
        case TimeoutError():
            raise RelayUnreachable(f"no connection in {options.timeouts.connect_s:.0f} s", where=where) from exc
        case OSError():
            raise RelayUnreachable(
                f"no connection: {exc.strerror or str(exc) or type(exc).__name__}", where=where
            ) from exc
        case aiosmtplib.SMTPException() if "STARTTLS" in exc.message:
            raise Permanent(
                "the relay offers no STARTTLS", where=where, remedy="security: tls with port 465, or another relay"
            ) from exc
        case aiosmtplib.SMTPException():
            raise RelayUnreachable(f"the relay: {exc.message[:200]}", where=where) from exc
    raise exc


def _said(exc: aiosmtplib.SMTPResponseException) -> str:
    return str(make_reply(exc.code, exc.message.split("\n")))[:200]
