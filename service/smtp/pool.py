"""Deliveries → connections that are used again: a relay of one account. Used by outbound.

Where all are in use, a message's envelope goes out with the end of the one before (RFC 2920 3.1): a round trip less.
Only once that one is answered does it go on; where the connection is lost by then, nothing of it was begun.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from service.clock import Clock
from service.errors import Transient
from service.observe import log, metrics
from service.smtp.booking import Booking
from service.smtp.envelope import Message, Prepared, prepare
from service.smtp.errors import SERVICE_CLOSING, ChunksUnknown, RelayFull, TurnedAway
from service.smtp.options import NO_EXTRAS, Extras, SmtpOptions
from service.smtp.session import QUICK_S, BeforeDot, Session
from service.smtp.wire import Reply

# Relays end idle connections after a minute or more, and count messages: Postfix's own reuse limit is 300 s.
IDLE_S: Final = 30.0
# So many envelopes in a row that were lost behind an answer, and from then on each waits for it.
LOST_BEHIND_LIMIT: Final = 2
# After a relay said that it takes no further connection, no more than stand are had for so long.
FULL_S: Final = 60.0
TRANSACTIONS_LIMIT: Final = 100


class _Waiting:
    """A message that has no connection yet. `prepared`: its envelope is out, behind another message's end.

    None: whoever books a connection for messages that are not there yet.
    """

    def __init__(self, message: Message | None) -> None:
        self.message = message
        self.prepared: Prepared | None = None
        self.behind_since = 0.0
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
        # Those of them that are told to end.
        self._parting: set[Session] = set()
        self._waiting: deque[_Waiting] = deque()
        self._behind: dict[Session, _Waiting] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._turns_away = False
        # Envelopes that were lost behind an answer, in a row, and when the last one was; whether any goes there.
        self._lost_behind = 0
        self._lost_behind_at = float("-inf")
        self._goes_behind = True
        # How many connections there may be: fewer for FULL_S, where the relay said that it takes no further one.
        self._limit = options.connections
        self._growing: asyncio.TimerHandle | None = None
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
        booking: Booking | None = None,
    ) -> dict[str, Reply]:
        """Deliver a message of CRLF lines; gives the reply that settles each recipient.

        `before_final_dot` is awaited, with the recipients refused so far, while the body streams: the message's end
        waits for it. `booking`: whose connection it takes. Raises RelayUnreachable, AuthRefused or Permanent where no
        connection came about, or the relay wants a login or TLS; TurnedAway where one was waited for; Transient where
        it was lost before the end; DotUnanswered after it; and whatever `before_final_dot` raises.
        """
        begun = False

        async def note_begun(refused: Mapping[str, Reply]) -> None:
            nonlocal begun
            begun = True
            await before_final_dot(refused)

        message = Message(mail_from, rcpt_to, data, extras)
        booked = booking.take(self) if booking is not None else None
        leave = self._leave if booking is None or booked is None else booking.give
        session: Session | None = None
        try:
            while True:
                lost, session = session, None
                if booked is not None:
                    session, prepared, kept, booked = booked, None, True, None
                else:
                    session, prepared, kept = await self._session(message, lost)
                try:
                    replies = await session.transact(message, before_final_dot=note_begun, prepared=prepared)
                except ChunksUnknown as exc:
                    # Nothing was begun, and from now on new connections use DATA.
                    self._chunks = False
                    log.info("chunks_unknown", account=self.options.account, relay=self.name, error=exc.what)
                except Transient as exc:
                    # A relay may have ended an idle connection just now; nothing was begun, so a new try costs nothing.
                    if begun or not kept:
                        raise
                    if prepared is not None:
                        self._note_lost_behind(session, exc)
                else:
                    if prepared is not None:
                        self._lost_behind = 0
                    # Or it does so now, with a word.
                    if begun or not kept or any(reply.code != SERVICE_CLOSING for reply in replies.values()):
                        return replies
        finally:
            if session is not None:
                leave(session)

    async def book(self) -> Booking:
        """Wait for a connection, as a message does. Raises as `deliver` does where none comes about."""
        session, _, _ = await self._session(None, None)
        return Booking(self, session, self._leave)

    async def probe(self) -> None:
        """Connect and log in, and keep the connection. Raises as `deliver` does where none comes about."""
        self._count += 1
        if (session := await self._open()) is not None:
            self._leave(session)

    def turn_away(self, *, until_closed: bool = False) -> None:
        """Whoever waits for a connection waits no more. `until_closed`: nor does whoever would begin to."""
        self._turns_away = self._turns_away or until_closed
        for waiting in (*self._waiting, *self._behind.values()):
            if not waiting.got.done():
                waiting.got.set_exception(TurnedAway("no connection is waited for", where=self.options.where))

    async def close(self) -> None:
        """End the idle connections. The next delivery opens one again."""
        self._turns_away = False
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        idle, self._idle = self._idle, []
        for session in idle:
            session.quit()
            self._gone()
        for session in list(self._parting):
            session.abort()
            self._parted(session)

    async def _session(self, message: Message | None, lost: Session | None) -> tuple[Session, Prepared | None, bool]:
        """A connection for it alone, its envelope where that is out already, and whether the connection stood before.

        `lost`: one that it had. A new one in its place is for it: where the relay ends each after a mail, it would get
        one after the other that others are done with. Raises TurnedAway, and as `_open` does.
        """
        again = lost is not None
        while True:
            if lost is None and (session := self._take()) is not None:
                return session, None, True
            waiting = _Waiting(message)
            # Who has waited before is not to wait behind everybody.
            self._waiting.insert(0 if again else len(self._waiting), waiting)
            if lost is None:
                self._call()
            else:
                self._leave(lost)
                lost = None
            if self._turns_away and not waiting.got.done():
                self._waiting.remove(waiting)
                raise TurnedAway("no connection is waited for", where=self.options.where)
            try:
                session = await waiting.got
            except asyncio.CancelledError:
                self._give_up(waiting)
                raise
            except TurnedAway:
                self._forget(waiting)
                raise
            if session is not None:
                return session, waiting.prepared, True
            if (session := await self._open()) is not None:
                return session, None, False
            again = True

    def _give_up(self, waiting: _Waiting) -> None:
        """It waits no more. What it was given in this moment is others'; a connection that has its envelope is nobody's
        once the message before is answered."""
        self._forget(waiting)
        if waiting.got.cancelled() or waiting.got.exception() is not None:
            return
        session = waiting.got.result()
        if session is None:
            self._gone()
        else:
            if waiting.prepared is not None:
                session.abort()
            self._leave(session)

    def _forget(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _note_lost_behind(self, session: Session, why: Transient) -> None:
        """An envelope was lost although the message before it was answered: once is a relay that closes.

        So it is on all connections that stood then.
        """
        if session.opened_at <= self._lost_behind_at:
            return
        self._lost_behind_at = self._clock.monotonic()
        self._lost_behind += 1
        if self._lost_behind == LOST_BEHIND_LIMIT:
            self._goes_behind = False
            log.info("envelopes_wait", account=self.options.account, relay=self.name, error=why.what)

    async def _open(self) -> Session | None:
        """A new one, which is counted already; None where the relay takes none beside the others.

        Those serve, and nobody need hear that it is away. Raises as `deliver` does where none comes about.
        """
        try:
            session = await Session.open(
                self.options, clock=self._clock, chunks=self._chunks, next_message=self._next_behind
            )
        except RelayFull:
            others = self._count - 1
            self._limit = max(1, others)
            if self._growing is not None:
                self._growing.cancel()
            self._growing = asyncio.get_running_loop().call_later(FULL_S, self._grow)
            self._gone()
            if not others:
                raise
            return None
        except BaseException:
            self._gone()
            raise
        metrics.RECONNECTS.labels(protocol="smtp", reason="new").inc()
        return session

    def _grow(self) -> None:
        """What the relay said of further connections is believed no more."""
        self._growing = None
        self._limit = self.options.connections
        self._call()

    def _slow(self) -> Session | None:
        """A connection whose message takes its time, and somebody is behind it."""
        before = self._clock.monotonic() - QUICK_S
        late = (at for at, one in self._behind.items() if one.behind_since <= before and not one.got.done())
        return next(late, None)

    def _first(self) -> _Waiting | None:
        """Who has waited longest, and does so no more."""
        if (slow := self._slow()) is None:
            return self._waiting.popleft() if self._next() is not None else None
        waiting = self._behind[slow]
        # The envelope that is out is nobody's, and the connection ends once the message before is answered.
        self._behind[slow] = _Waiting(waiting.message)
        self._behind[slow].got.cancel()
        waiting.prepared = None
        return waiting

    def _next(self) -> _Waiting | None:
        """Who has waited longest for any. One that is cancelled gives up in its own next step."""
        while self._waiting and self._waiting[0].got.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _next_behind(self, session: Session) -> Prepared | None:
        """Who waits, and whose envelope may go out now on this connection."""
        waiting = self._next()
        if waiting is None or waiting.message is None or not (self._goes_behind and waiting.message.is_small):
            return None
        if session.transactions >= TRANSACTIONS_LIMIT or self._slow() is not None:
            return None
        try:
            made = prepare(waiting.message, session.offer)
        except Exception:  # noqa: BLE001 it fails so where it has a connection, and not another's message
            return None
        if not isinstance(made, Prepared):
            return None  # it is refused where it has a connection
        waiting.prepared, waiting.behind_since = made, self._clock.monotonic()
        self._behind[session] = self._waiting.popleft()
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(QUICK_S, self._look)
        return made

    def _look(self) -> None:
        """Whose message is behind one that takes its time has a connection that is free: one timer for all.

        One that comes free later is his, too, before those who began to wait after him (`_first`).
        """
        self._looking = None
        while (free := self._take()) is not None:
            if (waiting := self._first()) is None:
                self._rest(free)
                break
            waiting.got.set_result(free)
        self._call()
        if any(not waiting.got.done() for waiting in self._behind.values()):
            self._looking = asyncio.get_running_loop().call_later(QUICK_S, self._look)

    def _leave(self, session: Session) -> None:
        """Its message is through with it: it is another's, or idle, or over."""
        session.shared = True
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
        if session.transactions >= TRANSACTIONS_LIMIT or not session.usable or self._exceeds:
            self._end(session)
        elif (waiting := self._first()) is not None:
            waiting.got.set_result(session)
        else:
            self._rest(session)

    @property
    def _exceeds(self) -> bool:
        return self._count - len(self._parting) > self._limit

    def _end(self, session: Session) -> None:
        """Its place is another's once the relay has ended it, too: one that takes so many would refuse that one."""
        self._parting.add(session)
        session.part(partial(self._parted, session))

    def _parted(self, session: Session) -> None:
        if session in self._parting:
            self._parting.remove(session)
            self._gone()

    def _gone(self) -> None:
        """One connection less."""
        self._count -= 1
        self._call()

    def _call(self) -> None:
        """Have those who wait make connections, as many as may be."""
        while self._count < self._limit and (waiting := self._first()) is not None:
            self._count += 1
            waiting.got.set_result(None)

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
