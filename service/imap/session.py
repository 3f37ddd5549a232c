"""One IMAP connection as the things mailbus does with it: open, list, examine, survey, read, idle.

Used by ingest's ImapSource. One command at a time; a command that is cancelled or times out ends the connection.
RFC 9051 where the server speaks it, RFC 3501 otherwise; both answer alike to what is asked here.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from service import __version__
from service.clock import Clock
from service.contract import Security
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.imap.encode import decode_mailbox, mailbox_argument, quoted, uid_set
from service.imap.grammar import (
    Capabilities,
    Condition,
    Enabled,
    Exists,
    Expunged,
    FetchData,
    Listed,
    Response,
    Search,
    Status,
    parse_date,
    parse_flags,
    parse_number,
)
from service.imap.protocol import Handler, ImapProtocol, connect, network_error, sasl_plain
from service.imap.refusals import refused_command, refused_login
from service.imap.state import Idle
from service.imap.wire import WireLimits
from service.observe import log, metrics

# One budget for an attempt: DNS, TCP, TLS, greeting, login, ENABLE.
CONNECT_TIMEOUT_S: Final = 30.0
LOGOUT_TIMEOUT_S: Final = 3.0
# A single message may come slowly: silence is what `reply_s` is for, this is the end of patience with a trickle.
COMMAND_LIMIT_S: Final = 1800.0
# What one survey holds; whoever asked for more asks again from there.
SURVEY_LIMIT_ROWS: Final = 40_000
LIST_LIMIT: Final = 20_000
# What a literal may have beside the message: servers announce RFC822.SIZE a little wrong.
LITERAL_SLACK_BYTES: Final = 1024 * 1024
HEADER_LIMIT_BYTES: Final = 1024 * 1024
# A server that ends IDLE at once would have us spin.
IDLE_ENDED_PAUSE_S: Final = 1.0


def _ignore(_response: Response) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to reach a mailbox's server. `message_limit`: bytes of the largest message that is read whole."""

    account: str
    host: str
    port: int
    security: Security
    tls: ssl.SSLContext | None
    username: str
    password: str = field(repr=False)
    message_limit: int
    reply_s: float = 30.0
    connect_s: float = CONNECT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class SelectedMailbox:
    """What EXAMINE said. `uidnext` is 0 where an old server left it out."""

    name: str
    uidvalidity: int
    uidnext: int
    exists: int


@dataclass(frozen=True, slots=True)
class ListedMailbox:
    """One mailbox of a LIST; attributes in lower case, with their backslash."""

    name: str
    delimiter: str | None
    attributes: frozenset[str]


@dataclass(frozen=True, slots=True)
class SurveyedMessage:
    """What the server says of a message without giving it."""

    uid: int
    size: int
    flags: frozenset[str]
    internal_date: datetime | None


class Session:
    """An open connection, logged in."""

    def __init__(self, protocol: ImapProtocol, options: SessionOptions, clock: Clock) -> None:
        self._protocol = protocol
        self._options = options
        self._clock = clock
        self._where = f"{options.account} {options.host}:{options.port}"
        self._utf8 = False
        self.capabilities: frozenset[str] = frozenset()
        self.exists = 0

    # -- open and close ---------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, options: SessionOptions, *, clock: Clock) -> "Session":
        """Connect, secure, log in, within one budget of time.

        Raises AuthRefused (credentials), Permanent (certificate, no way to log in), Transient otherwise.
        """
        where = f"{options.account} {options.host}:{options.port}"
        limits = WireLimits(literal_bytes=options.message_limit + LITERAL_SLACK_BYTES)
        try:
            async with asyncio.timeout(options.connect_s):
                protocol = await connect(options.host, options.port, options.security, options.tls, limits, where=where)
                session = cls(protocol, options, clock)
                try:
                    await session._prepare()
                except BaseException:
                    protocol.close()
                    raise
                return session
        except TimeoutError as exc:
            raise Transient(f"no connection within {options.connect_s:g} s", where=where) from exc

    async def _prepare(self) -> None:
        protocol, options = self._protocol, self._options
        self._learn(protocol.greeting.result())
        if not self.capabilities:
            await self._run("CAPABILITY")
        if options.security is Security.STARTTLS:
            await self._start_tls()
        if not protocol.authenticated:
            await self._log_in()
        if "ID" in self.capabilities:
            # RFC 2971; some providers (163.com) let nobody read who does not say it. A refusal is no trouble.
            await self._ask("ID", f'("name" "mailbus" "version" "{__version__}")')
        if "ENABLE" in self.capabilities and "UTF8=ACCEPT" in self.capabilities:
            # RFC 6855: otherwise such a server changes internationalised mail before it gives it.
            await self._ask("ENABLE", "UTF8=ACCEPT")

    async def _start_tls(self) -> None:
        if self._options.tls is None:
            raise RuntimeError("STARTTLS without a TLS context")
        if self._protocol.authenticated or "STARTTLS" not in self.capabilities:
            raise Permanent(
                "the server offers no STARTTLS here: nothing is sent in the clear",
                where=self._where,
                remedy="set `security: tls` and its port, usually 993",
            )
        answer = await self._ask("STARTTLS")
        if answer.status is not Status.OK:
            raise refused_command("STARTTLS", answer, where=self._where)
        try:
            await self._protocol.start_tls(self._options.tls, self._options.host)
        except OSError as exc:
            raise network_error(exc, self._where) from exc
        # RFC 9051 6.2.1: what was said before TLS counts for nothing.
        self.capabilities = frozenset()
        await self._run("CAPABILITY")

    async def _log_in(self) -> None:
        before = self.capabilities
        self.capabilities = frozenset()  # RFC 9051 6.2.2: they change with the login
        answer = await self._authenticate(before)
        if answer.status is not Status.OK:
            raise refused_login(answer, where=self._where, secret=self._options.password)
        self._protocol.enter(selected=False)
        self._learn(answer)
        if not self.capabilities:
            await self._run("CAPABILITY")

    async def _authenticate(self, capabilities: frozenset[str]) -> Condition:
        options = self._options
        if "AUTH=PLAIN" in capabilities:
            initial = sasl_plain(options.username, options.password)
            # RFC 4959: the first answer may go with the command where SASL-IR is offered.
            with_ir = "SASL-IR" in capabilities
            arguments = ("PLAIN", initial) if with_ir else ("PLAIN",)
            answer = await self._ask("AUTHENTICATE", *arguments, answers=[] if with_ir else [initial])
            if answer.status is not Status.BAD or "LOGINDISABLED" in capabilities:
                return answer
        if "LOGINDISABLED" in capabilities:
            raise Permanent(
                "the server allows no password here (LOGINDISABLED)",
                where=self._where,
                remedy="set `security: tls`; some providers want OAuth",
            )
        username = quoted(options.username, field="username")
        return await self._ask("LOGIN", username, quoted(options.password, field="password"))

    async def logout(self) -> None:
        """Leave politely, within a few seconds, whatever the server does."""
        with suppress(MailbusError, TimeoutError):
            async with asyncio.timeout(LOGOUT_TIMEOUT_S):
                await self._ask("LOGOUT")
        self._protocol.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._protocol.close()

    # -- mailboxes --------------------------------------------------------------------------------------------

    async def list_mailboxes(self, pattern: str = "*") -> list[ListedMailbox]:
        """All mailboxes whose names match the pattern."""
        found: list[ListedMailbox] = []

        def take(response: Response) -> None:
            if isinstance(response, Listed) and len(found) < LIST_LIMIT:
                found.append(ListedMailbox(decode_mailbox(response.name), response.delimiter, response.attributes))

        await self._run("LIST", '""', mailbox_argument(pattern, utf8=self._utf8), handler=take)
        return found

    async def examine(self, mailbox: str) -> SelectedMailbox:
        """Open a mailbox without changing it (RFC 9051 6.3.3). Raises Permanent where it cannot be opened."""
        codes: dict[str, int] = {}

        def take(response: Response) -> None:
            if isinstance(response, Condition) and response.argument.isdigit():
                codes[response.code] = int(response.argument)

        self.exists = 0
        self._protocol.enter(selected=False)
        await self._run("EXAMINE", mailbox_argument(mailbox, utf8=self._utf8), handler=take)
        self._protocol.enter(selected=True)
        uidvalidity = codes.get("UIDVALIDITY", 0)
        if not 0 < uidvalidity < 2**32:
            raise Permanent(
                "the mailbox has no UIDVALIDITY: what was announced could not be told from what was not",
                where=f"{self._where} {mailbox}",
                remedy="leave it out of `mailboxes`",
            )
        return SelectedMailbox(mailbox, uidvalidity, codes.get("UIDNEXT", 0), self.exists)

    # -- messages ---------------------------------------------------------------------------------------------

    async def survey(self, first: int, last: int | None) -> list[SurveyedMessage]:
        """UIDs first to last (None: to the end), ascending, the lowest SURVEY_LIMIT_ROWS of them at most.

        RFC 9051 6.4.9: `n:*` gives the last message even where its UID is below n, so it is filtered here.
        """
        return await self._survey(f"{first}:{'*' if last is None else last}", first, last)

    async def survey_last(self) -> list[SurveyedMessage]:
        """The message with the highest UID; empty in an empty mailbox."""
        return await self._survey("*", 1, None)

    async def _survey(self, wanted: str, first: int, last: int | None) -> list[SurveyedMessage]:
        rows: dict[int, SurveyedMessage] = {}

        def take(response: Response) -> None:
            if not isinstance(response, FetchData):
                return
            uid, size = parse_number(response.items.get("UID")), parse_number(response.items.get("RFC822.SIZE"))
            # Without a size it is no answer to this command: somebody else changed a flag.
            if uid is None or size is None or uid < first or (last is not None and uid > last):
                return
            rows[uid] = SurveyedMessage(
                uid, size, parse_flags(response.items.get("FLAGS")), parse_date(response.items.get("INTERNALDATE"))
            )
            if len(rows) >= 2 * SURVEY_LIMIT_ROWS:
                for highest in sorted(rows)[SURVEY_LIMIT_ROWS:]:
                    del rows[highest]

        await self._run("FETCH", wanted, "(UID FLAGS INTERNALDATE RFC822.SIZE)", prefix="UID", handler=take)
        return [rows[uid] for uid in sorted(rows)[:SURVEY_LIMIT_ROWS]]

    async def search_lowest(self, criteria: str) -> int | None:
        """The lowest UID that the criteria find (RFC 9051 6.4.4), None where there is none."""
        found: list[int] = []

        def take(response: Response) -> None:
            if isinstance(response, Search):
                found.extend(response.numbers)

        # RFC 4731: one number instead of a line of a million.
        options = ("RETURN (MIN)",) if "ESEARCH" in self.capabilities else ()
        await self._run("SEARCH", *options, criteria, prefix="UID", handler=take)
        return min(found, default=None)

    async def fetch_bodies(self, uids: Sequence[int], give: Callable[[int, bytes], None], *, header_only: bool) -> None:
        """Read messages, or the first of their headers, and give each as it comes; never marks them read.

        A message that the server does not give is left out; an unasked or repeated one is not given. A NO is no
        error where something was given (Exchange says NO after all the messages but one).
        """
        section = f"BODY.PEEK[HEADER]<0.{HEADER_LIMIT_BYTES}>" if header_only else "BODY.PEEK[]"
        left = set(uids)
        uid_of: dict[int, int] = {}

        def take(response: Response) -> None:
            if isinstance(response, Expunged):
                uid_of.clear()  # the numbers mean other messages now
            if not isinstance(response, FetchData):
                return
            uid = parse_number(response.items.get("UID"))
            if uid is not None and uid in left:
                uid_of[response.seq] = uid
            # Some servers give a message in two responses, the UID in one of them alone.
            uid = uid if uid is not None else uid_of.get(response.seq)
            body = next((value for name, value in response.items.items() if name.startswith("BODY[")), None)
            if uid in left and isinstance(body, bytes):
                left.discard(uid)
                give(uid, body)

        answer = await self._ask("FETCH", uid_set(uids), f"(UID {section})", prefix="UID", handler=take)
        if answer.status is not Status.OK:
            log.info("fetch_refused", where=self._where, missing=len(left), code=answer.code)

    async def noop(self) -> None:
        """RFC 9051 6.1.2: hear what is new."""
        await self._run("NOOP")

    async def idle(self, max_s: float) -> float | None:
        """Wait in IDLE until the mailbox has more messages, for `max_s` at most.

        Gives the moment (monotonic) of the notice, None without one. Raises PeerError where the connection is
        dead: `+` or the answer to DONE did not come in time (whatever happened since was not heard: resync).
        """
        before = self.exists
        noticed: list[float] = []

        def take(response: Response) -> None:
            self._count(response)
            if self.exists > before and not noticed:
                noticed.append(self._clock.monotonic())

        protocol = self._protocol
        protocol.begin_idle(take)
        await self._in_time(lambda: protocol.idle is not Idle.ASKED)
        if protocol.idle is Idle.ON:
            await protocol.wait_idle(lambda: bool(noticed), max_s)
        if protocol.idle is Idle.ON:
            protocol.send_done()
            await self._in_time(lambda: False)
            return noticed[0] if noticed else None
        # The server ended it, or refused it.
        if protocol.idle_answer().status is not Status.OK:
            log.warning("idle_refused", where=self._where, code=protocol.idle_answer().code)
            self.capabilities -= {"IDLE"}
        elif not noticed:
            await self._clock.sleep(IDLE_ENDED_PAUSE_S)
        return noticed[0] if noticed else None

    async def _in_time(self, ready: Callable[[], bool]) -> None:
        if not await self._protocol.wait_idle(ready, self._options.reply_s):
            metrics.IDLE_STALE.inc()
            failure = PeerError(f"IDLE is dead: no answer in {self._options.reply_s:g} s", where=self._where)
            self._protocol.fail(failure)
            raise failure

    # -- commands ---------------------------------------------------------------------------------------------

    async def _run(self, name: str, *arguments: str, prefix: str | None = None, handler: Handler = _ignore) -> None:
        """A command that must be answered OK."""
        answer = await self._ask(name, *arguments, prefix=prefix, handler=handler)
        if answer.status is not Status.OK:
            raise refused_command(name, answer, where=self._where)

    async def _ask(
        self,
        name: str,
        *arguments: str,
        prefix: str | None = None,
        handler: Handler = _ignore,
        answers: list[str] | None = None,
    ) -> Condition:
        def take(response: Response) -> None:
            self._count(response)
            self._learn(response)
            handler(response)

        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                return await self._protocol.run(
                    name, *arguments, reply_s=self._options.reply_s, prefix=prefix, handler=take, answers=answers
                )
        except TimeoutError as exc:
            raise PeerError(f"{name} took over {COMMAND_LIMIT_S:g} s", where=self._where) from exc

    def _count(self, response: Response) -> None:
        match response:
            case Exists(count):
                if count < self.exists:
                    # RFC 9051 7.4.1: only EXPUNGE makes it smaller.
                    metrics.PROTOCOL_VIOLATION.labels(kind="exists_shrank").inc()
                self.exists = count
            case Expunged():
                self.exists = max(0, self.exists - 1)
            case _:
                pass

    def _learn(self, response: Response) -> None:
        match response:
            case Capabilities(names):
                self.capabilities = names
            case Condition(code="CAPABILITY", argument=argument):
                self.capabilities = frozenset(argument.upper().split())
            case Enabled(names):
                self._utf8 = self._utf8 or "UTF8=ACCEPT" in names
            case _:
                pass
