"""A maildrop, from the first packet to QUIT: connect, secure, log in, list, read, delete, leave.

Used by ingest and after, which keep it for minutes: a maildrop that is open is locked to everybody else (RFC 1939 8).
Numbers of messages hold for one session and no longer. RFC 1939, 2449, 2595, 5034.
"""

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

from service.clock import Clock
from service.contract import Security
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.login import LoginGate, TokenLogin, TokenSource, mechanism_for, said_of_token, sasl_plain, with_token
from service.pop3.protocol import SILENT_REMEDY, Asked, Handler, Pop3Protocol, connect
from service.pop3.refusals import no_clear_password, no_tls, refused_command, refused_login, refused_tls
from service.pop3.state import Phase, Verb
from service.pop3.wire import (
    COMMAND_LIMIT_BYTES,
    LISTING_LIMIT_BYTES,
    Challenge,
    Message,
    Rows,
    Shape,
    Status,
    command,
    parse_banner,
    parse_capabilities,
    parse_count,
    parse_sizes,
    parse_uidls,
)
from service.reach import ANYWHERE, Reach

# One budget for an attempt: DNS, TCP, TLS, greeting, login.
CONNECT_TIMEOUT_S: Final = 30.0
# Real servers take a few hundred.
CAPA_LIMIT_BYTES: Final = 64 * 1024
QUIT_TIMEOUT_S: Final = 3.0
# A session that was silent for so long is asked whether it is still there.
SILENT_S: Final = 60.0
# Taking away 100,000 messages takes a server a while.
UPDATE_TIMEOUT_S: Final = 600.0
# What a message may have beyond the limit: servers announce sizes a little wrong.
MESSAGE_SLACK_BYTES: Final = 1024 * 1024
# Commands under way at once where the server takes them so; half of them go out in one piece.
DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Pop3Options:
    """How to reach a maildrop. `message_limit`: bytes of the largest message that is read whole.

    `tokens` stands instead of a password. Whoever shares these options shares `gate`: one try at a wrong password.
    `apop`: log in by APOP and by nothing else. `login_remedy`: what this provider wants, for whoever is refused.
    """

    account: str
    host: str
    port: int
    security: Security
    tls: ssl.SSLContext | None
    username: str
    password: str = field(repr=False)
    message_limit: int
    apop: bool = False
    reply_s: float = 30.0
    connect_s: float = CONNECT_TIMEOUT_S
    tokens: TokenSource | None = None
    login_remedy: str = ""
    reach: Reach = ANYWHERE
    gate: LoginGate = field(default_factory=LoginGate, repr=False, compare=False)

    @property
    def where(self) -> str:
        """For whoever reads an error."""
        return f"{self.account} {self.host}:{self.port}"


class Session:
    """An open maildrop."""

    def __init__(self, protocol: Pop3Protocol, options: Pop3Options) -> None:
        self._protocol = protocol
        self._options = options
        self.where = options.where
        # What the server says it can; nothing where it knows no CAPA.
        self.capabilities: dict[str, tuple[str, ...]] = {}

    # -- open -------------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, options: Pop3Options, *, clock: Clock) -> Self:
        """Connect, secure, log in, within one budget of time.

        Raises AuthRefused (credentials), Permanent (certificate, no way to log in), NotNow (locked, too early),
        Transient otherwise. Until a login has proved the credentials right, one goes first and the others hear what
        it found.
        """

        async def login() -> Self:
            return await with_token(options.tokens, lambda token: cls._connect(options, token))

        return await options.gate.through(login, clock)

    @classmethod
    async def _connect(cls, options: Pop3Options, token: str | None) -> Self:
        try:
            async with asyncio.timeout(options.connect_s):
                protocol, greeting = await connect(
                    options.host,
                    options.port,
                    options.security,
                    options.tls,
                    reply_s=options.reply_s,
                    reach=options.reach,
                    where=options.where,
                )
                session = cls(protocol, options)
                try:
                    await session._prepare(greeting, token)
                except BaseException:
                    protocol.close()
                    raise
                return session
        except TimeoutError as exc:
            raise Transient(
                f"no connection within {options.connect_s:g} s", where=options.where, remedy=SILENT_REMEDY
            ) from exc

    async def _prepare(self, greeting: Status, token: str | None) -> None:
        await self._learn()
        if self._options.security is Security.STARTTLS:
            await self._start_tls()
        await self._log_in(greeting, token)
        if self.capabilities:
            # RFC 2449 5: they may be others for who is known; LOGIN-DELAY may be this user's own.
            await self._learn()

    async def _learn(self) -> None:
        rows: list[bytes] = []
        status = await self._listed(Verb.CAPA, rows.extend, CAPA_LIMIT_BYTES)
        self.capabilities = parse_capabilities(rows) if status.ok else {}

    async def _start_tls(self) -> None:
        if self._options.tls is None:
            raise RuntimeError("STLS without a TLS context")
        if self.capabilities and "STLS" not in self.capabilities:
            raise no_tls(where=self.where)
        status = await self._say(Verb.STLS)
        if not status.ok:
            raise refused_tls(status, where=self.where)
        await self._protocol.start_tls(self._options.tls, self._options.host)
        # RFC 2595 4: what was said before TLS counts for nothing.
        await self._learn()

    async def _log_in(self, greeting: Status, token: str | None) -> None:
        options, sent, detail = self._options, "", ""
        if token is not None:
            mechanism = mechanism_for(self.capabilities.get("SASL", ()))
            if mechanism is None:
                raise Permanent(
                    "the server takes no OAuth 2 tokens",
                    where=self.where,
                    remedy="write a password instead of `oauth2`, or correct the host",
                )
            sent = mechanism.initial(TokenLogin(options.username, token, options.host, options.port))
            status, detail = await self._authenticate(mechanism.name, sent, mechanism.farewell)
        elif options.apop:
            status = await self._apop(greeting)
        elif "PLAIN" in self.capabilities.get("SASL", ()):
            sent = sasl_plain(options.username, options.password)
            status, _ = await self._authenticate("PLAIN", sent, "*")
        else:
            if options.security is Security.NONE and self.capabilities and "USER" not in self.capabilities:
                raise no_clear_password(where=self.where)
            status = await self._say(Verb.USER, options.username)
            if status.ok:
                status = await self._say(Verb.PASS, options.password)
        if not status.ok:
            raise refused_login(
                status,
                where=self.where,
                username=options.username,
                password=options.password if token is None else token,
                coded="AUTH-RESP-CODE" in self.capabilities,
                sent=sent,
                detail=detail,
                remedy=options.login_remedy,
            )

    async def _apop(self, greeting: Status) -> Status:
        banner = parse_banner(greeting.text)
        if not banner:
            raise Permanent(
                "the server offers no APOP", where=self.where, remedy="leave `apop` out, with `security: tls`"
            )
        # RFC 1939 7 wants MD5; it hides the password from whoever listens, and from nobody who has time.
        secret = f"{banner}{self._options.password}".encode()
        digest = hashlib.md5(secret, usedforsecurity=False).hexdigest()
        return await self._say(Verb.APOP, self._options.username, digest)

    async def _authenticate(self, mechanism: str, initial: str, farewell: str) -> tuple[Status, str]:
        """RFC 5034 4: the first response goes with the command where that fits into one."""
        fits = len(f"AUTH {mechanism} {initial}\r\n") <= COMMAND_LIMIT_BYTES
        # RFC 5034 4: an asterisk gives up.
        answers = [farewell, "*"] if fits else [initial, farewell, "*"]
        said: list[str] = []

        def take(piece: Challenge | Rows | Message) -> None:
            if isinstance(piece, Challenge):
                said.append(said_of_token(piece.text))
                if not answers:
                    raise PeerError("the server asks for more than there is to say", where=self.where)
                self._protocol.write(answers.pop(0).encode("ascii") + b"\r\n")

        line = command(Verb.AUTH, mechanism, initial) if fits else command(Verb.AUTH, mechanism)
        asked = self._protocol.ask(Verb.AUTH, handler=take)
        self._protocol.write(line)
        status = await self._protocol.wait(asked)
        return status, next(filter(None, said), "")

    # -- what there is ----------------------------------------------------------------------------------------

    @property
    def login_delay_s(self) -> float:
        """RFC 2449 6.5: how long after one login the next one may be."""
        told = next(iter(self.capabilities.get("LOGIN-DELAY", ())), "")
        return float(told) if told.isascii() and told.isdecimal() and len(told) < 7 else 0.0

    @property
    def pipelining(self) -> bool:
        """RFC 2449 6.6: whether many commands may be out at once."""
        return "PIPELINING" in self.capabilities

    async def count(self) -> int | None:
        """STAT: how many messages there are; None where the server does not say. Raises Transient."""
        status = await self._say(Verb.STAT)
        return parse_count(status.text) if status.ok else None

    async def sizes(self, take: Callable[[list[tuple[int, int]]], None]) -> None:
        """LIST: numbers and sizes in octets as they come. Raises Transient."""
        status = await self._listed(Verb.LIST, lambda rows: take(parse_sizes(rows)))
        if not status.ok:
            raise refused_command("LIST", status, where=self.where)

    async def uidls(self, take: Callable[[list[tuple[int, bytes]]], None]) -> bool:
        """UIDL: numbers and unique ids as they come, an id that is none empty; False where the server has none.

        Raises Transient where it has them (RFC 2449 6.8) and does not tell: nothing may be taken for unnamed then.
        """
        status = await self._listed(Verb.UIDL, lambda rows: take(parse_uidls(rows)))
        if not status.ok and (status.code == "SYS/TEMP" or "UIDL" in self.capabilities):
            raise refused_command("UIDL", status, where=self.where)
        return status.ok

    async def read(
        self, numbers: Sequence[int], give: Callable[[int, bytes], None], *, whole: bool, lines: int = 0
    ) -> list[int]:
        """RETR, or by TOP the header and so many lines: each as it comes; gives the numbers of those that are refused.

        Raises Transient with the connection, PeerError for a message over the limit.
        """
        limit = self._options.message_limit + MESSAGE_SLACK_BYTES
        verb = Verb.RETR if whole else Verb.TOP

        def wanted(number: int) -> tuple[bytes, Asked]:
            def take(piece: Challenge | Rows | Message) -> None:
                if isinstance(piece, Message):
                    give(number, piece.body)

            asked = self._protocol.ask(verb, Shape.MESSAGE, take, limit_bytes=limit)
            return (command(verb, number) if whole else command(verb, number, lines)), asked

        return await self._many(numbers, wanted)

    async def is_alive(self) -> bool:
        """Whether the server still answers: RFC 1939 3 lets it end a session after ten minutes of silence."""
        if self._protocol.failure is None and self._protocol.silent_s > SILENT_S:
            with suppress(MailbusError):
                await self._say(Verb.NOOP)
        return self._protocol.failure is None

    async def delete(self, numbers: Sequence[int]) -> list[int]:
        """DELE: marks messages, which go with QUIT; gives the numbers of those that are refused. Raises Transient."""
        return await self._many(numbers, lambda number: (command(Verb.DELE, number), self._protocol.ask(Verb.DELE)))

    async def quit(self) -> None:
        """Take away what is marked, and leave (RFC 1939 6). Raises Transient where the server did not say +OK.

        Without that +OK nobody knows what is gone: the next listing says.
        """
        self._protocol.patience_s = max(self._protocol.patience_s, UPDATE_TIMEOUT_S)
        try:
            status = await self._say(Verb.QUIT)
        finally:
            self._protocol.close()
        if not status.ok:
            raise refused_command("QUIT", status, where=self.where)

    async def leave(self) -> None:
        """Say QUIT where nothing is marked, within a few seconds, whatever the server does."""
        if self._protocol.failure is None and self._protocol.phase in {Phase.AUTHORIZATION, Phase.TRANSACTION}:
            with suppress(MailbusError, TimeoutError):
                async with asyncio.timeout(QUIT_TIMEOUT_S):
                    await self._say(Verb.QUIT)
        self._protocol.close()

    def abort(self) -> None:
        """Drop the connection at once: what is marked stays."""
        self._protocol.close()

    # -- commands ---------------------------------------------------------------------------------------------

    async def _say(self, verb: Verb, *arguments: str) -> Status:
        line = command(verb, *arguments)
        asked = self._protocol.ask(verb)
        self._protocol.write(line)
        return await self._protocol.wait(asked)

    async def _listed(
        self, verb: Verb, take: Callable[[list[bytes]], None], limit_bytes: int = LISTING_LIMIT_BYTES
    ) -> Status:
        def rows(piece: Challenge | Rows | Message) -> None:
            if isinstance(piece, Rows) and piece.rows:
                take(piece.rows)

        handler: Handler = rows
        asked = self._protocol.ask(verb, Shape.ROWS, handler, limit_bytes=limit_bytes)
        self._protocol.write(command(verb))
        return await self._protocol.wait(asked)

    async def _many(self, numbers: Sequence[int], wanted: Callable[[int], tuple[bytes, Asked]]) -> list[int]:
        """Commands for all numbers, many of them out at once where the server takes them so; gives the refused."""
        depth = DEPTH if self.pipelining else 1
        out: deque[tuple[int, Asked]] = deque()
        refused: list[int] = []
        at = 0
        while at < len(numbers) or out:
            if at < len(numbers) and len(out) <= depth // 2:
                lines = []
                for number in numbers[at : at + depth - len(out)]:
                    line, asked = wanted(number)
                    lines.append(line)
                    out.append((number, asked))
                at += len(lines)
                self._protocol.write(b"".join(lines))
            number, asked = out.popleft()
            status = await self._protocol.wait(asked)
            if not status.ok:
                if status.code == "SYS/TEMP":
                    self._protocol.close()
                    raise refused_command(asked.verb, status, where=self.where)
                refused.append(number)
        return refused
