"""An IMAP connection from its first packet to its last: connect, secure, log in, ask, leave.

Under session.py, which knows mailboxes. One command at a time; a command that is cancelled or times out ends the
connection. RFC 9051 where the server speaks it, RFC 3501 otherwise; both answer alike to what is asked here.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

from service import __version__
from service.clock import Clock
from service.contract import Security, credentials, normal_form
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.imap.encode import mailbox_argument, quoted
from service.imap.grammar import (
    Capabilities,
    Condition,
    Continuation,
    Enabled,
    Exists,
    Expunged,
    FetchData,
    Listed,
    Response,
    Status,
    StatusData,
    Vanished,
)
from service.imap.names import ListedNames
from service.imap.protocol import Handler, ImapProtocol, connect
from service.imap.refusals import no_starttls, refused_command, refused_login, refused_starttls
from service.imap.spans import total
from service.imap.stir import Stir
from service.imap.wire import WireLimits
from service.login import (
    LoginGate,
    TokenLogin,
    TokenSource,
    mechanism_for,
    said_of_token,
    sasl_login,
    sasl_plain,
    with_token,
)
from service.observe import metrics
from service.reach import ANYWHERE, Reach, network_error
from service.turns import Turns

# One budget for an attempt: DNS, TCP, TLS, greeting, login, ENABLE.
CONNECT_TIMEOUT_S: Final = 30.0
SILENT_REMEDY: Final = "check host, port and `security`: on port 993 it is `tls`"
LOGOUT_TIMEOUT_S: Final = 3.0
# A single message may come slowly: silence is what `reply_s` is for, this is the end of patience with a trickle.
COMMAND_LIMIT_S: Final = 1800.0
# What a literal may have beside the message: servers announce RFC822.SIZE a little wrong.
LITERAL_SLACK_BYTES: Final = 1024 * 1024

# RFC 9051 appendix E: what IMAP4rev2 took in, of what is used here.
_REV2: Final = frozenset({"ESEARCH", "LIST-EXTENDED", "LIST-STATUS", "LITERAL-", "MOVE", "SPECIAL-USE", "UIDPLUS"})


def ignore(_response: Response) -> None:
    """A handler for commands whose tagged answer says it all."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to reach a mailbox's server. `message_limit`: bytes of the largest message that is read whole.

    `tokens` stands instead of a password. Whoever shares these options shares `gate`: one try at a wrong password.
    `login_remedy`: what this provider wants, for whoever is refused.
    """

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
    tokens: TokenSource | None = None
    login_remedy: str = ""
    reach: Reach = ANYWHERE
    gate: LoginGate = field(default_factory=LoginGate, repr=False, compare=False)
    # One for all accounts of a process: in which turn of the event loop each hears that its connection is lost.
    losses: Turns = field(default_factory=Turns, repr=False, compare=False)
    # Shared as well: a mailbox's name in normal form C → how the server writes it, where it does not so.
    spelled: dict[str, str] = field(default_factory=dict, repr=False, compare=False)


class Connection:
    """An open connection, logged in. Keeps count of the selected mailbox's messages, whatever is asked."""

    def __init__(self, protocol: ImapProtocol, options: SessionOptions, clock: Clock) -> None:
        self.protocol = protocol
        self.options = options
        self.clock = clock
        self.where = f"{options.account} {options.host}:{options.port}"
        self.utf8 = False
        self.capabilities: frozenset[str] = frozenset()
        self.exists = 0
        self.stir = Stir()
        # RFC 5465: who is given what is said unasked of other mailboxes than the selected one.
        self.news: Handler = ignore
        self._answers_news = False

    # -- open and close ---------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, options: SessionOptions, *, clock: Clock) -> Self:
        """Connect, secure, log in, within one budget of time.

        Raises AuthRefused (credentials), Permanent (certificate, no way to log in), Transient otherwise. Until a login
        has proved the credentials right, one goes first and the others hear what it found.
        """

        async def login() -> Self:
            return await with_token(options.tokens, lambda token: cls._connect(options, clock, token))

        return await options.gate.through(login, clock)

    @classmethod
    async def _connect(cls, options: SessionOptions, clock: Clock, token: str | None) -> Self:
        where = f"{options.account} {options.host}:{options.port}"
        limits = WireLimits(literal_bytes=options.message_limit + LITERAL_SLACK_BYTES)
        try:
            async with asyncio.timeout(options.connect_s):
                protocol = await connect(
                    options.host,
                    options.port,
                    options.security,
                    options.tls,
                    limits,
                    reach=options.reach,
                    losses=options.losses,
                    where=where,
                    secrets=credentials(options.username, token or options.password),
                )
                session = cls(protocol, options, clock)
                try:
                    await session._prepare(token)
                except BaseException:
                    protocol.close()
                    raise
                return session
        except TimeoutError as exc:
            what = f"no connection within {options.connect_s:g} s"
            raise Transient(what, where=where, remedy=SILENT_REMEDY) from exc

    async def _prepare(self, token: str | None) -> None:
        protocol, options = self.protocol, self.options
        self._learn(protocol.greeting.result())
        if not self.capabilities:
            await self.run("CAPABILITY")
        if options.security is Security.STARTTLS:
            await self._start_tls()
        if not protocol.authenticated:
            await self._log_in(token)
        if "ID" in self.capabilities:
            # RFC 2971; some providers (163.com) let nobody read who does not say it. A refusal is no trouble.
            await self.ask("ID", f'("name" "mailbus" "version" "{__version__}")')
        if "ENABLE" in self.capabilities and "UTF8=ACCEPT" in self.capabilities:
            # RFC 6855: otherwise such a server changes internationalised mail before it gives it.
            await self.ask("ENABLE", "UTF8=ACCEPT")

    async def _start_tls(self) -> None:
        if self.options.tls is None:
            raise RuntimeError("STARTTLS without a TLS context")
        if self.protocol.authenticated or "STARTTLS" not in self.capabilities:
            raise no_starttls(skipped=self.protocol.authenticated, where=self.where)
        answer = await self.ask("STARTTLS")
        if answer.status is not Status.OK:
            raise refused_starttls(answer, where=self.where)
        try:
            await self.protocol.start_tls(self.options.tls, self.options.host)
        except OSError as exc:
            raise network_error(exc, self.where) from exc
        # RFC 9051 6.2.1: what was said before TLS counts for nothing.
        self.capabilities = frozenset()
        await self.run("CAPABILITY")

    async def _log_in(self, token: str | None) -> None:
        before = self.capabilities
        self.capabilities = frozenset()  # RFC 9051 6.2.2: they change with the login
        if token is None:
            answer = await self._authenticate(before)
        else:
            answer = await self._present(token, before)
        if answer.status is not Status.OK:
            raise refused_login(answer, where=self.where, remedy=self.options.login_remedy)
        self.protocol.enter(selected=False)
        self._learn(answer)
        if not self.capabilities:
            await self.run("CAPABILITY")

    async def _present(self, token: str, capabilities: frozenset[str]) -> Condition:
        """Log in with a token, by the best mechanism of those offered. Raises AuthRefused, with what was said of it."""
        options = self.options
        mechanism = mechanism_for(name.removeprefix("AUTH=") for name in capabilities if name.startswith("AUTH="))
        if mechanism is None:
            raise Permanent(
                "the server takes no OAuth 2 tokens",
                where=self.where,
                remedy="write a password instead of `oauth2`, or correct the host",
            )
        initial = mechanism.initial(TokenLogin(options.username, token, options.host, options.port))
        self.protocol.conceal(initial)
        with_ir = "SASL-IR" in capabilities  # RFC 4959
        arguments = (mechanism.name, initial) if with_ir else (mechanism.name,)
        answers = [mechanism.farewell] if with_ir else [initial, mechanism.farewell]
        said: list[str] = []

        def take(response: Response) -> None:
            if isinstance(response, Continuation):
                said.append(said_of_token(response.text))

        answer = await self.ask("AUTHENTICATE", *arguments, answers=answers, handler=take)
        if answer.status is Status.OK:
            return answer
        raise refused_login(
            answer,
            where=self.where,
            detail=next(filter(None, said), ""),
            remedy=options.login_remedy or "check `username` and `oauth2.scope`, and whether IMAP is switched on",
        )

    async def _authenticate(self, capabilities: frozenset[str]) -> Condition:
        options = self.options
        if "LOGINDISABLED" in capabilities and options.security is Security.NONE:
            # RFC 9051 6.2.3: it says that a password would go in the clear.
            raise Permanent(
                "the server allows no password in the clear (LOGINDISABLED)",
                where=self.where,
                remedy="set `security: starttls`, or `tls` and its port, usually 993",
            )
        if "AUTH=PLAIN" in capabilities:
            initial = sasl_plain(options.username, options.password)
            # RFC 4959: the first answer may go with the command where SASL-IR is offered.
            with_ir = "SASL-IR" in capabilities
            arguments = ("PLAIN", initial) if with_ir else ("PLAIN",)
            answer = await self.ask("AUTHENTICATE", *arguments, answers=[] if with_ir else [initial])
            if answer.status is not Status.BAD or "LOGINDISABLED" in capabilities:
                return answer
        if "LOGINDISABLED" in capabilities and "AUTH=LOGIN" in capabilities:
            # Without TLS this was refused above. The oldest mechanism, for who offers no other one for a password.
            return await self.ask("AUTHENTICATE", "LOGIN", answers=sasl_login(options.username, options.password))
        if "LOGINDISABLED" in capabilities:
            raise Permanent(
                "the server allows no password (LOGINDISABLED)",
                where=self.where,
                remedy=options.login_remedy or "it may want OAuth: write `oauth2` instead of a password",
            )
        username = quoted(options.username, field="username")
        return await self.ask("LOGIN", username, quoted(options.password, field="password"))

    async def logout(self) -> None:
        """Leave politely, within a few seconds, whatever the server does."""
        with suppress(MailbusError, TimeoutError):
            async with asyncio.timeout(LOGOUT_TIMEOUT_S):
                await self.ask("LOGOUT")
        self.protocol.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.protocol.close()

    # -- names ------------------------------------------------------------------------------------------------

    def named(self, mailbox: str) -> str:
        """A mailbox's name as an argument, spelled as the server has it."""
        name = normal_form(mailbox)
        return mailbox_argument(self.options.spelled.get(name, name), utf8=self.utf8)

    def learn_names(self, listed: ListedNames) -> None:
        """All names that the server lists: RFC 9051 5.1 wants them in normal form C, and not every client made them so.

        Of two that differ in nothing else, the one in that form has the name.
        """
        there = listed.forms
        forms = {there[spelled]: spelled for spelled in sorted(there)}
        self.options.spelled.clear()
        self.options.spelled.update({name: other for name, other in forms.items() if name not in there})

    async def respelled(self, mailbox: str) -> bool:
        """After a name was refused: whether the server has it in another normal form. All names are learnt then.

        Who names a mailbox in full has never listed any. Raises Transient.
        """
        before, names = self.named(mailbox), ListedNames(utf8=self.utf8)
        if mailbox.isascii():
            return False

        def take(response: Response) -> None:
            if isinstance(response, Listed):
                names.take(response.name)

        if (await self.ask("LIST", '""', '"*"', handler=take)).status is Status.OK:
            self.learn_names(names)
        return self.named(mailbox) != before

    # -- commands ---------------------------------------------------------------------------------------------

    def offers(self, extension: str) -> bool:
        """Whether the server has an extension."""
        return extension in self.capabilities

    async def run(self, name: str, *arguments: str, prefix: str | None = None, handler: Handler = ignore) -> None:
        """A command that must be answered OK."""
        answer = await self.ask(name, *arguments, prefix=prefix, handler=handler)
        if answer.status is not Status.OK:
            raise refused_command(name, answer, where=self.where)

    async def ask(
        self,
        name: str,
        *arguments: str,
        prefix: str | None = None,
        handler: Handler = ignore,
        answers: Sequence[str | bytes] = (),
        trailing: Sequence[bytes] = (),
        slack_s: float = 0.0,
    ) -> Condition:
        """A command to its tagged answer, whatever that says. Raises Transient with the connection.

        `answers`, `trailing`: as ImapProtocol.run has them; `slack_s`: what sending them may take.
        """

        def take(response: Response) -> None:
            self.count(response)
            if not isinstance(response, FetchData):
                self._learn(response)
            # What comes behind the answer is no part of it: who asked has what there was, and may be at work with it.
            if not self.protocol.answered:
                handler(response)

        # What these are answered is no news; whoever asks knows what to do with it.
        self._answers_news = name in {"LIST", "STATUS"}
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                answer = await self.protocol.run(
                    name,
                    *arguments,
                    reply_s=self.options.reply_s + slack_s,
                    prefix=prefix,
                    handler=take,
                    answers=answers,
                    trailing=trailing,
                )
        except TimeoutError as exc:
            raise PeerError(f"{name} took over {COMMAND_LIMIT_S:g} s", where=self.where) from exc
        self._answers_news = False
        self.stir.hear(answer)
        return answer

    def count(self, response: Response) -> None:
        """Note what a response says of the number of messages, and that something became of them."""
        if isinstance(response, FetchData):
            # Nearly all that comes; with a size or a body it is what was asked for.
            if "FLAGS" in response.items and "RFC822.SIZE" not in response.items:
                self.stir.hear(response)
            return
        self.stir.hear(response)
        match response:
            case Exists(count):
                if count < self.exists:
                    # RFC 9051 7.4.1: only EXPUNGE makes it smaller.
                    metrics.PROTOCOL_VIOLATION.labels(kind="exists_shrank").inc()
                    self.stir.gone = True
                self.exists = count
            case Expunged():
                self.exists = max(0, self.exists - 1)
            case Vanished(earlier=False, uids=uids):
                # RFC 7162 3.2.10: each of them lowers the count, as EXPUNGE would.
                self.exists = max(0, self.exists - total(uids))
            case Condition():
                self.news(response)
            case StatusData() | Listed() if self.protocol.answered or not self._answers_news:
                self.news(response)
            case _:
                pass

    def _learn(self, response: Response) -> None:
        match response:
            case Capabilities(names):
                self.capabilities = names | _REV2 if "IMAP4REV2" in names else names
            case Condition(code="CAPABILITY", argument=argument):
                self._learn(Capabilities(frozenset(argument.upper().split())))
            case Enabled(names):
                self.utf8 = self.utf8 or "UTF8=ACCEPT" in names
            case _:
                pass
