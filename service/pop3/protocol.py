"""One POP3 connection: commands out, replies to whoever asked, in order. The only file here that knows sockets.

Used by session.py. Many commands may be under way where the server takes them so (RFC 2449 6.6, PIPELINING). Whatever
comes goes to its command's handler at once, so nothing but one message's bytes is ever kept here.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from service.contract import Security
from service.errors import MailbusError, PeerError, Transient
from service.observe import log, metrics
from service.pop3.refusals import refused_greeting
from service.pop3.state import Phase, Verb, answered, sent
from service.pop3.wire import Challenge, Message, Piece, ReplyParser, Rows, Shape, Status
from service.reach import Reach, keep_alive, network_error, open_socket

Handler = Callable[[Challenge | Rows | Message], None]

# A reply may come slowly: silence is what `reply_s` is for, this is the end of patience with a trickle.
COMMAND_LIMIT_S: Final = 1800.0
# A server that waits for TLS says nothing until that begins.
SILENT_REMEDY: Final = "check host, port and `security`: on port 995 it is `tls`"
# Of a listing so much is handled before others get their turn: 500 lines, a millisecond.
AT_ONCE_BYTES: Final = 16 * 1024


def ignore(_piece: Challenge | Rows | Message) -> None:
    """A handler for commands whose status says it all."""


@dataclass(slots=True, eq=False)
class Asked:
    """A command that is out: its answer, once all that belongs to it has come."""

    verb: Verb
    shape: Shape
    answer: "asyncio.Future[Status]"
    handler: Handler
    status: Status | None = None


class Pop3Protocol(asyncio.Protocol):
    """Every way that a connection can end wakes whoever waits, with the reason."""

    def __init__(self, *, reply_s: float, where: str) -> None:
        self._loop = asyncio.get_running_loop()
        # Silence for so long is a dead connection.
        self.patience_s = reply_s
        self._where = where
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser()
        self._asked: deque[Asked] = deque()
        self._heard = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        self._hushed = False
        self._unread = b""
        self._reading = False
        self.failure: MailbusError | None = None
        self.phase = Phase.GREETING
        self.greeting = self._expect(Verb.GREET, Shape.LINE, ignore, 0)

    # -- the connection's life --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The network is there; after STLS a second time."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody."""
        reason = type(exc).__name__ if exc else "the server closed the connection"
        self.fail(Transient(f"connection lost: {reason}", where=self._where))

    def fail(self, failure: MailbusError) -> None:
        """End the connection for this reason; the first one counts."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        for asked in self._asked:
            if not asked.answer.done():
                asked.answer.set_exception(failure)
                asked.answer.exception()  # seen: whoever asked may have gone already
        self._asked.clear()

    def close(self) -> None:
        """Drop the connection."""
        self.fail(Transient("closed", where=self._where))

    # -- reading ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the network."""
        self._heard = self._loop.time()
        self._unread += data
        if not self._reading:
            self._read()

    def _read(self) -> None:
        """Handle what came; of a long listing the rest after others had their turn."""
        self._reading = False
        if self.failure is not None:
            return
        is_listing = bool(self._asked) and self._asked[0].shape is Shape.ROWS
        if not is_listing or len(self._unread) <= AT_ONCE_BYTES:
            data, self._unread = self._unread, b""
        else:
            data, self._unread = self._unread[:AT_ONCE_BYTES], self._unread[AT_ONCE_BYTES:]
        try:
            for piece in self._parser.feed(data):
                self._take(piece)
                if self.failure is not None or self._hushed:
                    return
        except MailbusError as exc:
            exc.where = exc.where or self._where
            self.fail(exc)
            return
        except Exception as exc:  # noqa: BLE001 whatever a stranger's bytes raise: whoever waits hears of it at once
            metrics.BUGS.inc()
            log.error("bug", where=self._where, exc_info=exc)
            self.fail(PeerError(f"an answer that mailbus cannot read: {type(exc).__name__}", where=self._where))
            return
        if self._transport is None:
            return
        if self._unread:
            self._reading = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read)
        else:
            self._transport.resume_reading()

    def _take(self, piece: Piece) -> None:
        asked = self._asked[0]
        match piece:
            case Status():
                asked.status = piece
                if asked.verb is Verb.STLS and piece.ok:
                    self._hush()
                if not piece.ok or asked.shape is Shape.LINE:
                    self._done(asked, piece)
            case Challenge():
                if asked.verb is not Verb.AUTH:
                    raise PeerError("the server wants more of a command that is whole")
                asked.handler(piece)
            case Rows():
                asked.handler(piece)
                if piece.last:
                    self._done(asked, asked.status)
            case Message():
                asked.handler(piece)
                self._done(asked, asked.status)

    def _done(self, asked: Asked, status: Status | None) -> None:
        if status is None:
            raise RuntimeError("an answer without a status")
        self._asked.popleft()
        self.phase = answered(self.phase, asked.verb, ok=status.ok)
        if not asked.answer.done():
            asked.answer.set_result(status)

    def _hush(self) -> None:
        """Read nothing more in the clear (RFC 2595 4): what came with the +OK was slipped in (CVE-2011-0411)."""
        if self._unread or not self._parser.empty:
            raise PeerError("data after the answer to STLS", remedy="somebody is in the middle")
        self._hushed = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _silence(self) -> None:
        self._watch = None
        if not self._asked or self.failure is not None:
            return
        left = self._heard + self.patience_s - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._silence)
        else:
            verb = self._asked[0].verb
            remedy = SILENT_REMEDY if verb is Verb.GREET else ""
            self.fail(PeerError(f"no answer to {verb} in {self.patience_s:g} s", where=self._where, remedy=remedy))

    @property
    def silent_s(self) -> float:
        """For how long the server has said nothing."""
        return self._loop.time() - self._heard

    # -- commands ---------------------------------------------------------------------------------------------

    def _expect(self, verb: Verb, shape: Shape, handler: Handler, limit_bytes: int) -> Asked:
        self._parser.expect(shape, limit_bytes)
        asked = Asked(verb, shape, self._loop.create_future(), handler)
        self._asked.append(asked)
        self._heard = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self.patience_s, self._silence)
        return asked

    def write(self, data: bytes) -> None:
        """Bytes as they are. Raises Transient with the connection."""
        self._check()
        if self._transport is None:
            raise RuntimeError("a command before the connection")
        self._transport.write(data)

    def ask(self, verb: Verb, shape: Shape = Shape.LINE, handler: Handler = ignore, *, limit_bytes: int = 0) -> Asked:
        """Expect the answer to a command that is written next, after those that are out already."""
        self._check()
        self.phase = sent(self.phase, verb)
        return self._expect(verb, shape, handler, limit_bytes)

    async def wait(self, asked: Asked) -> Status:
        """A command's status, once all that it gives was handled. Raises Transient with the connection.

        When cancelled, the connection is out of step and ends.
        """
        if asked.status is not None and asked.answer.done() and asked.answer.exception() is None:
            # Of many at once most are there already: a timer for each would be a fifth of what a small mail costs here.
            return asked.status
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                return await asked.answer
        except TimeoutError:
            failure = PeerError(f"{asked.verb} took over {COMMAND_LIMIT_S:g} s", where=self._where)
            self.fail(failure)
            raise failure from None
        except asyncio.CancelledError:
            self.fail(Transient(f"{asked.verb} was given up half-way", where=self._where))
            raise
        except MailbusError as exc:
            # The reason anew for each who hears it: an exception that is raised twice grows its traceback.
            raise type(exc)(exc.what, where=exc.where, remedy=exc.remedy) from None

    def _check(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(self.failure.what, where=self._where, remedy=self.failure.remedy)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Secure the connection, after STLS was answered +OK. Raises as connecting does."""
        if self._transport is None:
            raise RuntimeError("STLS before the connection")
        try:
            made = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        except OSError as exc:
            raise network_error(exc, self._where) from exc
        if made is None:
            raise Transient("connection lost during STLS", where=self._where)
        self._transport = made
        self._hushed = False


async def connect(
    host: str,
    port: int,
    security: Security,
    context: ssl.SSLContext | None,
    *,
    reply_s: float,
    reach: Reach,
    where: str,
) -> tuple[Pop3Protocol, Status]:
    """Connect and read the greeting. The caller sets the time. Raises Transient, Permanent (certificate, reach)."""
    protocol = Pop3Protocol(reply_s=reply_s, where=where)
    loop = asyncio.get_running_loop()
    secure = context if security is Security.TLS else None
    try:
        made = await open_socket(host, port, reach, where=where)
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=made, ssl=secure, server_hostname=host if secure else None
        )
    except OSError as exc:
        protocol.close()
        raise network_error(exc, where) from exc
    except BaseException:
        protocol.close()
        raise
    try:
        keep_alive(transport)
        greeting = await protocol.wait(protocol.greeting)
        if not greeting.ok:
            raise refused_greeting(greeting, where=where)
    except BaseException:
        protocol.close()
        raise
    return protocol, greeting
