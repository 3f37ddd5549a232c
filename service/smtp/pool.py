"""Deliveries → connections that are used again: a relay of one account. Used by outbound.

Where all are in use, a message's envelope goes out with the end of the one before (RFC 2920 3.1): a round trip less.
Only once that one is answered does it go on; where the connection is lost by then, nothing of it was begun.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from service.clock import Clock
from service.errors import Transient
from service.observe import log, metrics
from service.smtp.envelope import Message, Prepared, prepare
from service.smtp.errors import ChunksUnknown
from service.smtp.options import NO_EXTRAS, Extras, SmtpOptions
from service.smtp.session import SERVICE_CLOSING, BeforeDot, Session
from service.smtp.wire import Reply

# Relays end idle connections after a minute or more, and count messages: Postfix's own reuse limit is 300 s.
IDLE_S: Final = 30.0
TRANSACTIONS_LIMIT: Final = 100


class _Waiting:
    """A message that has no connection yet. `prepared`: its envelope is out, behind another message's end."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.prepared: Prepared | None = None
        # None: there is room for a new connection.
        self.got: asyncio.Future[Session | None] = asyncio.get_running_loop().create_future()


class Relay:
    """The relay of one account. Every message has a connection to itself until its end is out; idle ones wait."""

    def __init__(self, options: SmtpOptions, clock: Clock) -> None:
        self.options = options
        self._clock = clock
        # Connections that stand, or are being made.
        self._count = 0
        self._idle: list[Session] = []
        self._waiting: deque[_Waiting] = deque()
        self._behind: dict[Session, _Waiting] = {}
        # Until one that offers BDAT turns out not to know it.
        self._chunks = True
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """As a record names it."""
        return f"{self.options.host}:{self.options.port}"

    async def deliver(
        self,
        mail_from: str,
        rcpt_to: Sequence[str],
        data: bytes,
        *,
        before_final_dot: BeforeDot,
        extras: Extras = NO_EXTRAS,
    ) -> dict[str, Reply]:
        """Deliver a message of CRLF lines; gives the reply that settles each recipient.

        `before_final_dot` is awaited, with the recipients refused so far, while the body streams: the message's end
        waits for it. Raises RelayUnreachable, AuthRefused or Permanent where no connection came about, or the relay
        wants a login or TLS; Transient where it was lost before the end; DotUnanswered after it; and whatever
        `before_final_dot` raises.
        """
        begun = False

        async def note_begun(refused: Mapping[str, Reply]) -> None:
            nonlocal begun
            begun = True
            await before_final_dot(refused)

        message = Message(mail_from, rcpt_to, data, extras)
        while True:
            session, prepared = await self._session(message)
            kept = session.transactions > 0
            try:
                replies = await session.transact(message, before_final_dot=note_begun, prepared=prepared)
            except ChunksUnknown as exc:
                # Nothing was begun, and from now on new connections use DATA.
                self._chunks = False
                log.info("chunks_unknown", account=self.options.account, relay=self.name, error=exc.what)
            except Transient:
                # A relay may have ended an idle connection just now; nothing was begun, so a new try costs nothing.
                if begun or not kept:
                    raise
            else:
                # Or it does so now, with a word.
                if begun or not kept or any(reply.code != SERVICE_CLOSING for reply in replies.values()):
                    return replies
            finally:
                self._leave(session)

    async def probe(self) -> None:
        """Connect and log in, and keep the connection. Raises as `deliver` does where none comes about."""
        self._count += 1
        self._leave(await self._open())

    async def close(self) -> None:
        """End the idle connections. The next delivery opens one again."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for session in self._idle:
            self._end(session)
        self._idle.clear()

    async def _session(self, message: Message) -> tuple[Session, Prepared | None]:
        """A connection for it alone, and its envelope where that is out already."""
        if (session := self._take()) is not None:
            return session, None
        if self._count < self.options.connections:
            self._count += 1
            return await self._open(), None
        waiting = _Waiting(message)
        self._waiting.append(waiting)
        try:
            session = await waiting.got
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise
        return (session, waiting.prepared) if session is not None else (await self._open(), None)

    def _give_up(self, waiting: _Waiting) -> None:
        """It waits no more. What it was given in this moment is others'; a connection that has its envelope is nobody's
        once the message before is answered."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        if waiting.got.cancelled():
            return
        session = waiting.got.result()
        if session is None:
            self._gone()
        else:
            if waiting.prepared is not None:
                session.abort()
            self._leave(session)

    async def _open(self) -> Session:
        """A new one, which is counted already."""
        try:
            session = await Session.open(
                self.options, clock=self._clock, chunks=self._chunks, next_message=self._next_behind
            )
        except BaseException:
            self._gone()
            raise
        metrics.RECONNECTS.labels(protocol="smtp", reason="new").inc()
        return session

    def _next_behind(self, session: Session) -> Prepared | None:
        """Who waits, and whose envelope may go out now on this connection."""
        if not self._waiting or session.transactions >= TRANSACTIONS_LIMIT:
            return None
        waiting = self._waiting[0]
        made = prepare(waiting.message, session.offer) if waiting.message.is_small else None
        if not isinstance(made, Prepared):
            return None  # it is refused where it has a connection
        waiting.prepared = made
        self._behind[session] = self._waiting.popleft()
        return made

    def _leave(self, session: Session) -> None:
        """Its message is through with it: it is another's, or idle, or over."""
        behind = self._behind.pop(session, None)
        if behind is not None:
            if behind.got.done():
                session.abort()
            elif session.ready:
                behind.got.set_result(session)
                return
            else:
                # Of it nothing was begun.
                behind.prepared = None
                self._waiting.appendleft(behind)
        if session.transactions >= TRANSACTIONS_LIMIT or not session.usable:
            self._end(session)
        elif self._waiting:
            self._waiting.popleft().got.set_result(session)
        else:
            self._rest(session)

    def _end(self, session: Session) -> None:
        session.quit()
        self._gone()

    def _gone(self) -> None:
        """One connection less, or one more for whoever waits."""
        if self._waiting:
            self._waiting.popleft().got.set_result(None)
        else:
            self._count -= 1

    def _take(self) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if session.usable and self._clock.monotonic() - session.used_at < IDLE_S:
                return session
            self._end(session)
        return None

    def _rest(self, session: Session) -> None:
        self._idle.append(session)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        now = self._clock.monotonic()
        for session in [one for one in self._idle if now - one.used_at >= IDLE_S or not one.usable]:
            self._idle.remove(session)
            self._end(session)
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)
