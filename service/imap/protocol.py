"""aioimaplib under our own reader: commands and their state stay its own, responses are cut and read by us.

The only file that knows aioimaplib; its private names are pinned by tests/imap/test_aioimaplib_pins.py. Of its
reader nothing is used: it recurses over the input, leaves IDLE hanging when a connection is lost, and matches
answers by the name of a command. Here one command is under way at a time, whatever comes goes to its handler.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aioimaplib import aioimaplib
from aioimaplib.aioimaplib import Cmd, Command, Commands, Exec, IMAP4ClientProtocol

from service.contract import Security, hidden
from service.errors import MailbusError, PeerError, Transient
from service.imap.grammar import Condition, Continuation, FetchData, Response, Search, Status, parse_response
from service.imap.message import weight_of
from service.imap.state import Idle, Seen, next_idle
from service.imap.wire import ResponseSplitter, WireLimits
from service.observe import log, metrics
from service.reach import Reach, keep_alive, network_error, open_socket
from service.turns import Turns

Handler = Callable[[Response], None]

# At most so many responses are read before others get their turn: 8 µs each at worst.
RESPONSES_AT_ONCE: Final = 250
# Or so much text: a millisecond for each 4 KB at worst. A survey's are 110 bytes each.
TEXT_AT_ONCE_BYTES: Final = 64 * 1024
# What a server may say during one command that nobody can have asked for: a window has 40,000 messages at most.
RESPONSES_LIMIT: Final = 250_000
# The same in bytes: a window's messages with 800 bytes of labels each, or the UIDs of four million. What is given of
# messages themselves is counted by whoever keeps it.
ANSWER_LIMIT_BYTES: Final = 32 * 1024 * 1024
# Of what a server says to people.
SHOWN_CHARS: Final = 500
# RFC 5465 3.1, which the library does not know.
Commands.setdefault("NOTIFY", Cmd("NOTIFY", (aioimaplib.AUTH, aioimaplib.SELECTED), Exec.is_sync))


def _ignore(_response: Response) -> None:
    pass


class ImapProtocol(IMAP4ClientProtocol):  # type: ignore[misc]  # aioimaplib has no types
    """One connection. Every way that it can end wakes whoever waits, with the reason."""

    def __init__(self, limits: WireLimits, *, losses: Turns, where: str, secrets: Sequence[str] = ()) -> None:
        """`losses`: the turn in which it is lost; `secrets`: what the server may repeat, and nobody may read."""
        super().__init__(asyncio.get_running_loop())
        self.transport: Any
        self._losses = losses
        self._where = where
        self._secrets = list(secrets)
        self._splitter = ResponseSplitter(limits)
        self._handler: Handler = _ignore
        self._answers: list[str | bytes] = []
        self._trailing: Sequence[bytes] = ()
        self._seen = self._size = 0
        self._reading = False
        self._hushed = False
        self._farewell = ""
        self._tagged: Condition | None = None
        self._news = asyncio.Event()
        self.idle = Idle.OFF
        self.greeting: asyncio.Future[Condition] = self.loop.create_future()
        self.failure: MailbusError | None = None
        # Told when the connection is over, by whoever wants to know although nothing is under way.
        self.lost: Callable[[], None] = lambda: None

    # -- the connection's life --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The network is there; after STARTTLS a second time."""
        if self.transport is None:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody, in a turn of our own: thousands may be lost in this one."""
        if self.failure is None:
            self._losses.soon(partial(self._fail_lost, exc))

    def _fail_lost(self, exc: Exception | None) -> None:
        # RFC 9051 7.1.5: the text of BYE says why.
        reason = self._farewell or (type(exc).__name__ if exc else "the server closed the connection")
        self.fail(Transient(f"connection lost: {reason}", where=self._where))

    def fail(self, failure: MailbusError) -> None:
        """End the connection for this reason; the first one counts."""
        if self.failure is not None:
            return
        self.failure = failure
        if self.transport is not None:
            self.transport.abort()
        if not self.greeting.done():
            self.greeting.set_exception(failure)
            self.greeting.exception()  # seen: whoever opens may have gone already
        for command in self._under_way():
            command._exception = failure
            command._timer.cancel()
            command._event.set()
        self._news.set()
        lost, self.lost = self.lost, lambda: None
        lost()
        # What knows the session, which knows this: in a circle all of it would wait for the collector.
        self._handler = _ignore

    def _under_way(self) -> list[Command]:
        sync = self.pending_sync_command
        return [*self.pending_async_commands.values(), *([sync] if sync is not None else [])]

    # -- reading ----------------------------------------------------------------------------------------------

    def data_received(self, d: bytes) -> None:
        """Bytes from the network."""
        if self.failure is not None:
            return
        self._splitter.feed(d)
        for command in self._under_way():
            command._reset_timer()
        if not self._reading:
            self._read()

    def _read(self) -> None:
        """Handle what is whole; the rest of a long piece after others had their turn."""
        self._reading = False
        enough = self._size + TEXT_AT_ONCE_BYTES
        try:
            for _ in range(RESPONSES_AT_ONCE):
                pieces = self._splitter.next_response()
                if pieces is None:
                    if not self._hushed:
                        self.transport.resume_reading()
                    return
                if len(pieces) > 1 or pieces[0]:
                    response = parse_response(pieces)
                    self._weigh(pieces, response)
                    self._handle(response)
                if self.failure is not None:
                    return
                if self._size > enough:
                    break
        except MailbusError as exc:
            exc.where = exc.where or self._where
            self.fail(exc)
            return
        self._reading = True
        self.transport.pause_reading()
        self.loop.call_soon(self._read)

    def _weigh(self, pieces: Sequence[bytes], response: Response) -> None:
        self._seen += 1
        self._size += weight_of(pieces, response)
        if self._seen > RESPONSES_LIMIT:
            raise PeerError(f"over {RESPONSES_LIMIT} responses to one command")
        if self._size > ANSWER_LIMIT_BYTES:
            raise PeerError(f"over {ANSWER_LIMIT_BYTES} bytes in answer to one command")

    def _handle(self, response: Response) -> None:
        if self.state == aioimaplib.CONNECTED:
            self._greet(response)
            return
        if isinstance(response, FetchData):
            # Nearly all that comes.
            self._handler(response)
            self._news.set()
            return
        match response:
            case Condition(tag="", status=Status.BYE):
                self._farewell = f"BYE {self._shown(response.text)}"
                # RFC 9051 7.1.5: the server is about to close. An answer follows to LOGOUT alone.
                if not any(command.name == "LOGOUT" for command in self._under_way()):
                    raise Transient(f"connection lost: {self._farewell}")
            case Condition(tag="", code="ALERT"):
                # RFC 9051 7.1: must be shown to the user.
                log.warning("imap_alert", where=self._where, text=self._shown(response.text))
            case Condition(tag=tag) if tag:
                self._done(response)
                return
            case Continuation():
                self._handler(response)
                self._continue()
                return
            case Search(tag=tag) if tag and all(command.tag != tag for command in self._under_way()):
                # RFC 9051 7.3.4: it answers another command. One that does not say is taken for the one under way.
                metrics.PROTOCOL_VIOLATION.labels(kind="esearch_tag").inc()
                return
            case _:
                pass
        self._handler(response)
        self._news.set()

    def _greet(self, response: Response) -> None:
        if not isinstance(response, Condition) or response.tag or response.status in {Status.NO, Status.BAD}:
            raise PeerError("no IMAP greeting", remedy="is this an IMAP server's port? with TLS?")
        if response.status is Status.BYE:
            raise Transient(f"the server is not available: {self._shown(response.text)}")
        self.state = aioimaplib.AUTH if response.status is Status.PREAUTH else aioimaplib.NONAUTH
        self.greeting.set_result(response)

    def conceal(self, secret: str) -> None:
        """Another word that nobody may read."""
        self._secrets.append(secret)

    def _shown(self, text: str) -> str:
        return hidden("".join(char if char.isprintable() else " " for char in text), self._secrets)[:SHOWN_CHARS]

    def _done(self, answer: Condition) -> None:
        command = self.pending_sync_command or next(iter(self.pending_async_commands.values()), None)
        if command is None or command.tag != answer.tag:
            raise PeerError("an answer to no command")
        if command.name == "STARTTLS" and answer.status is Status.OK:
            self._hush()
        # Whoever refuses may repeat the login, in answer to whatever it is.
        text = hidden(answer.text, self._secrets)
        self._tagged = Condition(answer.tag, answer.status, answer.code, answer.argument, text)
        if command.name == "IDLE":
            self.idle = next_idle(self.idle, Seen.TAGGED)
        self._response_done(f"{answer.tag} {answer.status} {text}".encode())
        self._news.set()

    def _hush(self) -> None:
        """Read nothing more in the clear (RFC 9051 6.2.1): what came with the OK was slipped in (CVE-2011-0411)."""
        if not self._splitter.empty:
            raise PeerError("data after the answer to STARTTLS", remedy="somebody is in the middle")
        self._hushed = True
        self.transport.pause_reading()

    def _continue(self) -> None:
        if self._answers:
            answer = self._answers.pop(0)
            self.transport.write((answer if isinstance(answer, bytes) else answer.encode("ascii")) + b"\r\n")
        elif self.pending_sync_command is not None and self.pending_sync_command.name == "IDLE":
            self.idle = next_idle(self.idle, Seen.PLUS)
            self._news.set()
        elif self.pending_sync_command is not None and self.pending_sync_command.name == "AUTHENTICATE":
            # An error report of SASL (RFC 7628 3.2.3): an empty answer makes the server say NO.
            self.transport.write(b"\r\n")
        else:
            raise PeerError("the server wants more of a command that is whole")

    # -- commands ---------------------------------------------------------------------------------------------

    def send(self, line: str, scrub: str | None = None) -> None:
        """The first line of a command, and what follows it without waiting (RFC 7888)."""
        super().send(line, scrub)
        for more in self._trailing:
            self.transport.write(more + b"\r\n")

    async def run(
        self,
        name: str,
        *arguments: str,
        reply_s: float,
        prefix: str | None = None,
        handler: Handler = _ignore,
        answers: Sequence[str | bytes] = (),
        trailing: Sequence[bytes] = (),
    ) -> Condition:
        """One command to its tagged answer, whatever that says; silence for `reply_s` is a dead connection.

        answers: what to say to continuations; trailing: what to say without one. Raises Transient or PeerError when
        the connection is lost: it always is after a cancelled command, which leaves it out of step.
        """
        self._begin(handler, answers, trailing)
        command = Command(name, self.new_tag(), *arguments, prefix=prefix, loop=self.loop, timeout=reply_s)
        try:
            await self.execute(command)
        except aioimaplib.CommandTimeout:
            # from None: the library's exception shows the command, and with LOGIN the password.
            failure = PeerError(f"no answer to {name} in {reply_s:g} s", where=self._where)
            self.fail(failure)
            raise failure from None
        except aioimaplib.AioImapException as exc:
            raise RuntimeError(f"{name} in state {self.state}") from exc
        except asyncio.CancelledError:
            self.fail(Transient(f"{name} was given up half-way", where=self._where))
            raise
        return self._answer()

    # -- idle -------------------------------------------------------------------------------------------------

    def begin_idle(self, handler: Handler) -> None:
        """Send IDLE (RFC 2177). What comes goes to the handler; `idle` tells where it stands."""
        self._begin(handler)
        self.idle = next_idle(self.idle, Seen.START)
        command = Command("IDLE", self.new_tag(), loop=self.loop)
        self.pending_sync_command = command
        self.send(str(command))

    def send_done(self) -> None:
        """Ask for the end of IDLE."""
        self.idle = next_idle(self.idle, Seen.DONE)
        self.idle_done()

    async def wait_idle(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Until `ready` or the end of IDLE; False when the time has passed. Raises Transient with the connection."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.failure is None and self.idle is not Idle.OFF and not ready():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            self.fail(Transient("IDLE was given up", where=self._where))
            raise
        self.check()
        return True

    def wake(self) -> None:
        """Have `wait_idle` look whether it is ready."""
        self._news.set()

    def idle_answer(self) -> Condition:
        """What the tagged answer to IDLE was, once it is OFF."""
        return self._answer()

    def check(self) -> None:
        """Raise the reason where the connection is over."""
        if self.failure is not None:
            # The reason anew for each who hears it: an exception that is raised twice grows its traceback.
            raise type(self.failure)(self.failure.what, where=self._where, remedy=self.failure.remedy)

    def _begin(self, handler: Handler, answers: Sequence[str | bytes] = (), trailing: Sequence[bytes] = ()) -> None:
        self.check()
        if self._under_way():
            raise RuntimeError("two commands at once on one connection")
        self._handler, self._seen, self._size, self._tagged = handler, 0, 0, None
        self._answers, self._trailing = list(answers), trailing

    def _answer(self) -> Condition:
        if self._tagged is None:
            raise RuntimeError("a command without an answer")
        return self._tagged

    @property
    def answered(self) -> bool:
        """Whether the last command has its tagged answer."""
        return self._tagged is not None

    @property
    def authenticated(self) -> bool:
        """Whether the server knows who we are (RFC 9051 section 3)."""
        return self.state in {aioimaplib.AUTH, aioimaplib.SELECTED}

    def enter(self, *, selected: bool) -> None:
        """Authenticated, with a mailbox or without: the session knows it from the answers."""
        self.state = aioimaplib.SELECTED if selected else aioimaplib.AUTH

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Secure the connection, after STARTTLS was answered OK."""
        transport = await self.loop.start_tls(self.transport, self, context, server_hostname=host)
        if transport is None:
            raise Transient("connection lost during STARTTLS", where=self._where)
        self.transport = transport
        self._hushed = False

    def close(self) -> None:
        """Drop the connection."""
        self.fail(Transient("closed", where=self._where))


async def connect(
    host: str,
    port: int,
    security: Security,
    context: ssl.SSLContext | None,
    limits: WireLimits,
    *,
    reach: Reach,
    losses: Turns,
    where: str,
    secrets: Sequence[str],
) -> ImapProtocol:
    """Connect and wait for the greeting. The caller sets the time. Raises Transient, Permanent (certificate, reach)."""
    protocol = ImapProtocol(limits, losses=losses, where=where, secrets=secrets)
    loop = asyncio.get_running_loop()
    secure = context if security is Security.TLS else None
    try:
        made = await open_socket(host, port, reach, where=where)
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=made, ssl=secure, server_hostname=host if secure else None
        )
    except OSError as exc:
        raise network_error(exc, where) from exc
    try:
        keep_alive(transport)
        await protocol.greeting
    except BaseException:
        protocol.close()
        raise
    return protocol
