"""Who may have which place: an account's, the process's, the memory of a mail, and the process for himself alone.

Used by hands.py for each job, and by whoever carries it. A job holds its places until it holds no connection any more:
one of its account's, and one of the process's, so that a thousand accounts do not send at once. A small mail leaves
them once its envelope is answered, for the next one's goes out with its end (smtp/pool.py). Storing and saying what
became of it needs none. The memory of its mail it holds to the end. Whoever waits for memory holds no place, and may
wait for one with it: so nobody waits in a circle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from service.budget import Budget, Share
from service.errors import MailbusError
from service.outbound.bugs import Bugs
from service.outbound.pace import NEVER, Pace
from service.smtp import Booking

# A relay that lets one wait for longer has its account's place only: it must not keep all accounts from sending.
SLOW_S: Final = 2.0
# A request that may have ended its process is built and on its way to the relay by then, or has ended this one too.
ALONE_S: Final = 30.0
# After somebody had all of that, nobody goes alone for so long: relays that take their time must not stop everybody.
NOT_ALONE_S: Final = 60.0
# The part of the budget that deliveries have: a relay that takes its time, or a limit of rate, leaves the other half to
# what is read. And how often a mail takes the size of its request and blobs: they are there to the end, and the mail
# that is made of them takes four thirds, twice while it is signed. A byte of the budget stands for two.
MEMORY_PART: Final = 2
MEMORY_TIMES: Final = 2
# Requests in hand hold about a megabyte an account as it is (sender.py): one so small waits for no memory.
UNCOUNTED_BYTES: Final = 64 * 1024


class Deliveries:
    """What all senders of a process share: so many places at once, a part of the memory, a name, and what failed.

    `writer` and `lives`: as suspects.py has them. Whoever goes alone closes the door until he is done.
    """

    def __init__(self, at_once: int, memory: Budget, *, writer: str, lives: Callable[[str], Awaitable[bool]]) -> None:
        self.memory = Share(memory, memory.limit // MEMORY_PART)
        self.writer = writer
        self.lives = lives
        self.bugs = Bugs()
        self._places = asyncio.Semaphore(at_once)
        self._empty = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._alone = asyncio.Lock()
        self._open_until = float("-inf")
        # Who is inside, and until when he is not slow, in the order of their times.
        self._by_now: dict[Place, float] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def enter(self, place: "Place") -> None:
        """Wait for a place, and for whoever goes alone. It is given back by `leave`, or once it is slow."""
        await self._places.acquire()
        while not self._open.is_set():
            self._places.release()
            await self._open.wait()
            await self._places.acquire()
        self._by_now[place] = monotonic() + SLOW_S
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(SLOW_S, self._look)

    def leave(self, place: "Place") -> None:
        """Give the place back; again does nothing."""
        if self._by_now.pop(place, None) is None:
            return
        self._places.release()
        if not self._by_now:
            self._empty.set()

    def _look(self) -> None:
        """Who is slow: one timer for all."""
        now = monotonic()
        for place in [one for one, until in self._by_now.items() if until <= now]:
            self.leave(place)
        first = next(iter(self._by_now.values()), None)
        self._looking = None if first is None else asyncio.get_running_loop().call_later(first - now, self._look)

    async def close(self) -> bool:
        """Wait until nobody is inside, which is SLOW_S at the most; nobody enters until `open`.

        False: it was closed for too long just now, and stays open.
        """
        await self._alone.acquire()
        if asyncio.get_running_loop().time() < self._open_until:
            self._alone.release()
            return False
        self._open.clear()
        try:
            while self._by_now:
                self._empty.clear()
                await self._empty.wait()
        except BaseException:
            self.open()
            raise
        return True

    def open(self, *, stay_s: float = 0.0) -> None:
        """After `close`, once. It stays open for so long."""
        self._open_until = asyncio.get_running_loop().time() + stay_s
        self._open.set()
        self._alone.release()


class Alone:
    """A job that goes without anybody beside, with all its mails, one after the other; for ALONE_S at the most.

    `booking`: the connection that they go by for so long.
    """

    def __init__(self, shared: Deliveries, booking: Booking | None) -> None:
        self.booking = booking
        self.over = asyncio.Event()
        self._shared = shared
        self._busy = False
        self._left = asyncio.Event()
        self._timer = asyncio.get_running_loop().call_later(ALONE_S, self.end, NOT_ALONE_S)

    async def turn(self) -> bool:
        """Wait until no other mail of it is under way. False once the others are let in: it takes places as they do."""
        while self._busy and not self.over.is_set():
            self._left.clear()
            await self._left.wait()
        if self.over.is_set():
            return False
        self._busy = True
        return True

    def leave(self) -> None:
        """The mail is through."""
        self._busy = False
        self._left.set()

    def end(self, stay_s: float = 0.0) -> None:
        """Let the others in; again does nothing."""
        if not self.over.is_set():
            self._timer.cancel()
            self.over.set()
            self._left.set()
            self._shared.open(stay_s=stay_s)
            if self.booking is not None:
                self.booking.end()


class NoTurn(MailbusError):
    """The account's turn does not come while this process has the job: the queue keeps it."""


class Place:
    """Where one job is worked on, until it is left. `stop`: is set once the account's work ends."""

    def __init__(
        self,
        own: asyncio.Semaphore,
        shared: Deliveries,
        stop: asyncio.Event | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._own = own
        self._shared = shared
        self._pace = pace
        self.stop = stop or asyncio.Event()
        self._taken = False
        self._held: int | None = None
        self._alone: Alone | None = None
        self._in_turn = False
        self._had_turn = False
        self._turn_at = NEVER
        self.spent = False

    async def alone(self, book: Callable[[], Awaitable[Booking | None]] | None = None) -> Alone | None:
        """Go on without anybody beside; None where it was somebody's right for too long just now.

        `book` waits for a connection, as long as nobody else waits for this.
        """
        booking = await book() if book is not None else None
        self.leave()
        try:
            if await self._shared.close():
                self._alone = Alone(self._shared, booking)
        finally:
            if self._alone is None and booking is not None:
                booking.end()
        if self._alone is not None:
            self._in_turn = await self._alone.turn()
        return self._alone

    @property
    def booking(self) -> Booking | None:
        """By which connection its mails go, where it goes alone."""
        return self._alone.booking if self._alone is not None else None

    async def take(self) -> None:
        """Wait for both. Again does nothing."""
        if not self.taken:
            await self._enter()

    async def turn(self) -> None:
        """Its mail goes now: wait for the account's turn. Again does nothing.

        Who waits for it holds neither, and takes them again. Raises NoTurn where the account's work ends meanwhile.
        """
        if not self._had_turn and self._pace is not None:
            if self._pace.waits:
                self.leave()
            if (turn_at := await self._pace.turn(self.stop)) is None:
                raise NoTurn("the account's work ends")
            self._turn_at = turn_at
        self._had_turn = True

    def spend_turn(self) -> None:
        """Its mail is on its way to the relay: from now on there is nothing to give back."""
        self._had_turn = False
        self.spent = True

    def keep_turn(self) -> None:
        """Its mail was on its way, and turned away before it had a connection: the turn is there."""
        self._had_turn = True
        self.spent = False

    def give_turn_back(self) -> None:
        """Its mail does not go after all; does nothing where the turn is spent."""
        if self._had_turn and self._pace is not None:
            self._pace.give_back(self._turn_at)
        self._had_turn = False

    async def hold(self, size: int, *, mails: int = 1) -> None:
        """Wait for the memory of a request of `size` bytes with its blobs, of which so many mails are made at once.

        Until `end`. Who has some has it for all that the job needs: again does nothing.
        """
        if self._held is not None or size <= UNCOUNTED_BYTES:
            return
        memory, size = self._shared.memory, size * (MEMORY_TIMES - 1 + mails)
        self._held = memory.take_now(size)
        if self._held is None:
            was_taken = self.taken
            self.leave()
            self._held = await memory.take(size)
            if was_taken:
                await self._enter()

    async def _enter(self) -> None:
        if self._alone is not None and await self._alone.turn():
            self._in_turn = True
            return
        await self._own.acquire()
        try:
            await self._shared.enter(self)
        except BaseException:
            self._own.release()
            raise
        self._taken = True

    def another(self) -> "Place":
        """One more, for a job of several mails, with a turn of its own, or the one that the job has.

        Who waits for it holds none: all of them could wait for each other.
        """
        more = Place(self._own, self._shared, pace=self._pace)
        more._alone = self._alone
        more._had_turn, more._turn_at = self._had_turn, self._turn_at
        self._had_turn = False
        return more

    @property
    def taken(self) -> bool:
        """Whether it is held."""
        return self._taken or self._in_turn

    @property
    def ending(self) -> bool:
        """Whether the account's work ends, and a long job had better."""
        return self.stop.is_set()

    async def wait_ending(self) -> None:
        """Until it does."""
        await self.stop.wait()

    def leave(self) -> None:
        """Give both back; again does nothing."""
        if self._taken:
            self._taken = False
            self._shared.leave(self)
            self._own.release()
        if self._in_turn and self._alone is not None:
            self._in_turn = False
            self._alone.leave()

    def end(self) -> None:
        """The job is out of hand: its memory is others', and a turn that it did not spend. Again does nothing."""
        self.leave()
        self.give_turn_back()
        if self._alone is not None:
            self._alone.end()
        if self._held is not None:
            self._shared.memory.give(self._held)
            self._held = None
