"""An account's connections for reading: few, lent to its mailboxes in turn.

A mailbox has a place. It takes a connection when its turn comes, stands on it in IDLE for as long as nobody needs it
more, and rests without one, until it is called: whose turn it is, plan.py decides. What only wants to ask a question
borrows a connection from a mailbox that idles on it. Connections are opened here, never more than the limit at once;
after a failure nobody of the account tries again before its pause is over, for providers count attempts.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

from service.boxes.plan import SEATED, Cue, Seat, Seating, Turn, Weight
from service.clock import Clock
from service.errors import MailbusError
from service.imap import Changes, Figures, Session
from service.observe import metrics

CLOSE_TIMEOUT_S: Final = 5.0
Choose: TypeAlias = Callable[[Iterable[Weight]], Weight]


class _Line:
    """One connection, or room for one."""

    def __init__(self) -> None:
        self.changes: Changes | None = None
        # Who wants to borrow it, told once it is free; and, while it is lent, what is set once it is back.
        self.asked: asyncio.Future[bool] | None = None
        self.back: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        return self.changes is not None and self.changes.session.protocol.failure is None

    def drop(self) -> None:
        if self.changes is not None:
            self.changes.session.abort()
        self.changes = None
        self.refuse()

    def refuse(self) -> None:
        """Whoever wants to borrow it shall ask another."""
        if self.asked is not None and not self.asked.done():
            self.asked.set_result(False)
            self.asked = None


class Lines:
    """One account's. `connect` opens a connection; `pause_s` gives seconds after so many failures, the last of them."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Session]],
        *,
        limit: int,
        pause_s: Callable[[int, MailbusError], float],
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._pause_s = pause_s
        self._clock = clock
        self._seating = Seating(limit)
        self._places: dict[Seat, Place] = {}
        self._spare: list[_Line] = []
        self._failures = 0
        self._failure: MailbusError | None = None
        self._closed_until = 0.0
        self._lost = 0

    @property
    def limit(self) -> int:
        """Connections at once."""
        return self._seating.limit

    @property
    def crowded(self) -> bool:
        """Whether there are more mailboxes than connections."""
        return len(self._places) > self._seating.limit

    def place(self, order: int) -> "Place":
        """A place for a mailbox, the `order`th of its account."""
        seat = Seat(order)
        place = self._places[seat] = Place(self, seat)
        return place

    # -- for places -------------------------------------------------------------------------------------------

    def cue(self, place: "Place", cue: Cue) -> None:
        """Something happens to a place, and what follows for others."""
        seat = place.seat
        had = seat.turn in SEATED
        self._seating.cue(seat, cue, self._clock.monotonic())
        if had and seat.turn not in SEATED and place.line is not None:
            line, place.line = place.line, None
            if line.open:
                # Whoever has it next may work on it for hours before it idles.
                line.refuse()
                self._spare.append(line)
            else:
                line.drop()
        self.arrange()

    def arrange(self) -> None:
        """Carry out what is decided."""
        decided = self._seating.decide(self._clock.monotonic())
        for seat in decided.seated:
            self._places[seat].line = self._spare.pop() if self._spare else _Line()
            self._places[seat].ring()
        # Whoever would have had it has gone.
        while self._spare:
            self._spare.pop().drop()
        for seat in decided.asked:
            self._places[seat].nudge()

    def overdue(self, place: "Place") -> bool:
        """Whether a place at work is to let others go on."""
        return self._seating.overdue(place.seat, self._clock.monotonic())

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a connection."""
        return self._seating.callers

    async def opened(self, place: "Place", line: _Line) -> Changes:
        """The connection of a line; opened where there is none, not before the pause after a failure is over.

        Whoever comes during the pause hears first why there is none, once.
        """
        if line.changes is not None and line.open:
            return line.changes
        if line.changes is not None:
            self._lost += 1
            line.drop()
        failure = self._failure
        if failure is not None and failure is not place.heard and self._closed_until > self._clock.monotonic():
            place.heard = failure
            raise copy.copy(failure)
        while (seconds := self._closed_until - self._clock.monotonic()) > 0:
            await self._clock.sleep(seconds)
        try:
            session = await self._connect()
        except MailbusError as exc:
            now = self._clock.monotonic()
            if now >= self._closed_until:
                self._failures += 1
                self._closed_until = now + self._pause_s(self._failures, exc)
                self._failure = exc
            place.heard = self._failure
            raise
        self._failures, self._failure = 0, None
        if self._lost:
            self._lost -= 1
            metrics.RECONNECTS.labels(protocol="imap", reason="transient").inc()
        line.changes = Changes(session)
        return line.changes

    def note_lost(self) -> None:
        """A connection was lost: the next one is a reconnect."""
        self._lost += 1

    def forget(self, place: "Place") -> None:
        """There is no such mailbox any more."""
        self._places.pop(place.seat, None)

    # -- borrowing --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def borrow(self, own: "Place") -> AsyncIterator[Session]:
        """A connection for a question or two: that of a mailbox that idles, else one by the turn of the place `own`.

        Raises Transient where none can be opened.
        """
        async with self.lent(min) as session:
            if session is not None:
                yield session
                return
        try:
            yield (await own.take()).session
        finally:
            await own.leave()

    @asynccontextmanager
    async def lent(self, choose: "Choose", *, only: Session | None = None) -> AsyncIterator[Session | None]:
        """The connection of the mailbox that idles and matters least (min) or most (max); None where none idles.

        That of the most important one is kept the longest. `only`: this connection, or none.
        """
        while True:
            idle = [self._places[seat] for seat in self._seating.standing()]
            lenders = {place.seat.weight: place for place in idle if place.lends and place.has(only)}
            if not lenders:
                yield None
                return
            place = lenders[choose(lenders)]
            line = place.line
            if line is None:
                raise RuntimeError("a place that stands without a connection")
            asked = line.asked = asyncio.get_running_loop().create_future()
            place.nudge()
            try:
                lent = await asked
            except asyncio.CancelledError:
                _returned(line, asked)
                raise
            if lent and line.changes is not None:
                try:
                    yield line.changes.session
                finally:
                    _returned(line, asked)
                return


def _returned(line: _Line, asked: "asyncio.Future[bool]") -> None:
    if line.asked is asked:
        line.asked = None
    if line.back is not None and not line.back.done():
        line.back.set_result(None)


class Place:
    """One mailbox's: what its source is given instead of a connection."""

    def __init__(self, lines: Lines, seat: Seat) -> None:
        self._lines = lines
        self.seat = seat
        self.line: _Line | None = None
        # As it was when it went to rest; None while it has a connection, or never had one.
        self.looked: Figures | None = None
        # What was told of it since then, or since it began to look: that may be newer than what it saw.
        self._told: Figures | None = None
        # The failure to connect that it was told last.
        self.heard: MailbusError | None = None
        self._bell = asyncio.Event()

    # -- told by others ---------------------------------------------------------------------------------------

    @property
    def resting(self) -> bool:
        """Whether it waits to be called."""
        return self.seat.turn is Turn.REST

    def call(self) -> None:
        """There is something to look at."""
        if self.seat.turn is Turn.OUT:
            return  # it begins anew, and looks by itself
        self._lines.cue(self, Cue.CALLED)
        self.ring()
        self.nudge()

    def asked(self, figures: Figures) -> bool:
        """How it stands, as a round found it. Whether it is called: at rest it has moved; once for each move."""
        before, self._told = self._told or self.looked, figures
        return self.resting and before is not None and self._called(before.differ(figures))

    def told(self, figures: Figures) -> bool:
        """It has changed, says the server unasked, and not all of how it stands. Whether it is called."""
        before = self._told or self.looked
        self._told = figures.over(before)
        # Without a modseq the figures may be those of before: flags change nothing else.
        moved = before is not None and (figures.modseq is None or before.differ(figures))
        return self.resting and self._called(moved)

    def _called(self, moved: bool) -> bool:
        if moved:
            self.call()
        return moved

    def arrived(self, at: float) -> None:
        """Mail came: the more it matters."""
        self.seat.active_at = at

    def nudge(self) -> None:
        """Have its IDLE end soon."""
        if self.line is not None and self.line.changes is not None:
            self.line.changes.session.nudge()

    def ring(self) -> None:
        """It has a connection, or has to ask for one."""
        self._bell.set()

    @property
    def lends(self) -> bool:
        """Whether its connection may be borrowed."""
        return self.line is not None and self.line.open and self.line.asked is None and self.line.back is None

    def has(self, session: Session | None) -> bool:
        """Whether its connection is this one; any is where none is meant."""
        return session is None or (
            self.line is not None and self.line.changes is not None and self.line.changes.session is session
        )

    # -- by the source ----------------------------------------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """Whether there are more mailboxes than connections."""
        return self._lines.crowded

    @property
    def displaced(self) -> bool:
        """Whether it is to leave."""
        return self._lines.overdue(self)

    async def take(self) -> Changes:
        """Its connection: the one that it has, or one once its turn comes. Raises what opening it raises."""
        self.looked = self._told = None
        self._lines.cue(self, Cue.CALLED)
        while self.line is None:
            self._bell.clear()
            await self._bell.wait()
        return await self._lines.opened(self, self.line)

    def stand(self) -> None:
        """It is about to idle."""
        self._lines.cue(self, Cue.STANDS)

    def work(self) -> None:
        """It goes on, maybe for hours: whoever asked for its connection and has not got it does not wait for that."""
        self._lines.cue(self, Cue.WORKS)
        if self.line is not None:
            self.line.refuse()

    async def lend(self) -> None:
        """Let somebody ask a question who waits to. Nothing of its own is under way."""
        line = self.line
        if line is None or line.asked is None or line.asked.done():
            return
        line.back = asyncio.get_running_loop().create_future()
        line.asked.set_result(True)
        try:
            await line.back
        finally:
            if not line.back.done():
                # Cancelled meanwhile: whoever asks something on it now hears that it is lost.
                line.drop()
            line.back = None

    async def rest(self, looked: Figures, limit_s: float) -> None:
        """Leave the connection to others until called, or the limit has passed."""
        await self._hang_up()
        told, self._told, self.looked = self._told, None, looked
        self._lines.cue(self, Cue.RESTS)
        if told is not None and looked.behind(told):
            return  # its own connection had not said so when it left
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.resting:
                    self._bell.clear()
                    await self._bell.wait()

    async def leave(self) -> None:
        """Its life ends, or a new one begins."""
        line = self.line
        try:
            await self._hang_up()
        finally:
            if line is not None and line.changes is not None and not line.open:
                self._lines.note_lost()
                line.drop()
            self._lines.cue(self, Cue.ENDS)

    async def _hang_up(self) -> None:
        """Leave politely, where nobody else waits for the connection. It counts until it is closed."""
        line = self.line
        if line is None or line.changes is None or not line.open or self._lines.wanted:
            return
        try:
            with suppress(MailbusError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await line.changes.session.logout()
        finally:
            line.drop()

    def forget(self) -> None:
        """There is no such mailbox any more."""
        self._lines.forget(self)
