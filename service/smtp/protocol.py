"""What a relay sends on its connection → replies in order, once aiosmtplib has connected; and what it did wrong.

Used by connect.py. The private names of aiosmtplib stand in tests/smtp/test_aiosmtplib_pins.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from service.errors import PeerError, Permanent, Transient
from service.smtp.wire import Reply, ReplyParser, make_reply

TLS_REMEDY: Final = "security: tls with port 465, or another relay"


class Protocol(SMTPProtocol):
    """Lock-step replies for aiosmtplib while it connects, a queue of replies for our transaction after that."""

    def __init__(self, lost: Callable[[SMTPProtocol], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop(), connection_lost_callback=lost)
        self._parser: ReplyParser | None = None
        self._replies: deque[Reply] = deque()
        self._expected = 0
        self._broken: PeerError | None = None
        self._gone = False
        # Whoever waits for a reply, until when, and the connection's one timer, which is set no more often than needed.
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0
        self._late = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        # Who is told that the connection has ended, and when it does at the latest.
        self._parted: Callable[[], None] | None = None
        self._parting: asyncio.TimerHandle | None = None

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
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, what: str) -> None:
        self._broken = self._broken or PeerError(what)
        self._wake()
        if self.transport is not None:
            writable(self.transport).abort()

    async def start_tls(self, *arguments: Any, **options: Any) -> aiosmtplib.SMTPResponse:
        """As aiosmtplib; a refusal for good is Permanent: nothing goes in the clear instead."""
        try:
            return await super().start_tls(*arguments, **options)
        except aiosmtplib.SMTPResponseException as exc:
            if exc.code < 500:
                raise
            said = make_reply(exc.code, exc.message.split("\n"))
            raise Permanent(f"the relay refuses STARTTLS: {said}"[:200], remedy=TLS_REMEDY) from exc

    def eof_received(self) -> bool:
        self._gone = True
        self._wake()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._wake()
        self._stop_timer()
        if self._parting is not None:
            self._parting.cancel()
        super().connection_lost(exc)
        if (parted := self._parted) is not None:
            self._parted = None
            parted()

    def part(self, parted: Callable[[], None], limit_s: float) -> None:
        """Nothing is sent any more: `parted` is told when the relay has closed the connection, in `limit_s` ours."""
        self._parted = parted
        if self.transport is not None:
            self._parting = self._loop.call_later(limit_s, writable(self.transport).abort)

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
        if self._gone or self.transport is None or self.transport.is_closing():
            raise self._broken or Transient("the relay closed the connection")
        self._expected += replies
        if data:
            writable(self.transport).write(data)

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
        if self._replies:  # pipelined ones come together: no timer for each
            self._expected -= 1
            return self._replies.popleft()
        loop = self._loop
        self._late = False
        self._set_timer(loop.time() + timeout_s)
        try:
            while not self._replies:
                if self._broken is not None:
                    raise self._broken
                if self._gone:
                    raise Transient("the relay closed the connection")
                if self._late:
                    raise Transient(f"no reply from the relay in {timeout_s:.0f} s")
                self._waiter = loop.create_future()
                await self._waiter
        finally:
            self._waiter = None
        self._expected -= 1
        return self._replies.popleft()

    def _set_timer(self, until: float) -> None:
        """Have who waits woken then. A timer that comes earlier stays: it sets itself again.

        asyncio.timeout takes 8 µs a reply, and nearly every reply comes in time.
        """
        self._until = until
        if self._timer is None or self._timer_at > until:
            self._stop_timer()
            self._timer, self._timer_at = self._loop.call_at(until, self._time_is_up), until

    def _time_is_up(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._timer_at >= self._until:
            self._late = True
            self._wake()
        else:
            self._set_timer(self._until)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def writable(transport: asyncio.BaseTransport) -> asyncio.WriteTransport:
    """uvloop's transports write, but are not asyncio's WriteTransport."""
    return cast(asyncio.WriteTransport, transport)
