"""A request → its turn: its recipients' domains', and its account's; before it is read, for who waits holds no memory.

Whoever has a domain's turn waits for no memory, and whoever has memory may wait for a domain's: none waits in a circle.
Nor does who has one wait behind who waits for one: of a mailing's messages those go first (mailing.py).
Used by ways.py. Lanes say what domains take (lanes.py), the pace what the account may send (pace.py, by places.py).
"""

from collections.abc import Awaitable, Callable
from typing import Final

from service.clock import Clock
from service.outbound.lanes import NO_TURN, Lanes, Turn
from service.outbound.pace import Pace
from service.outbound.places import NoTurn, Place
from service.outbound.relays import Relays
from service.outbound.sends import SendRecord

# A mailing waits in hand, with its memory, for turns that come within so long.
NEAR_S: Final = 5.0


class Turns:
    """Those of one account."""

    def __init__(self, lanes: Lanes, relays: Relays, pace: Pace, clock: Clock) -> None:
        self._lanes = lanes
        self._relays = relays
        self._pace = pace
        self._clock = clock

    async def take(self, record: SendRecord, place: Place, room: Callable[[], Awaitable[None]]) -> Turn | float:
        """A request's turn; or how many seconds until its domains' is to be expected. Raises NoTurn.

        `room` waits for its memory: before any domain's turn, for a mailing waits with its memory for those.
        """
        if record.split:
            # Each of its mails has its own; the first that of the request, where turns are far from each other.
            if self._pace.interval_s > NEAR_S:
                await self._accounts(record, place)
            await room()
            return NO_TURN
        await self._near(record, place)
        if (wait_s := self._lanes.ask(record.open, waited=record.turn)) > 0:
            return wait_s
        await self._accounts(record, place)
        await room()
        await self._near(record, place)
        # Not before: as long as it waits for the account's turn or for memory it keeps nobody from the domains'.
        turn = self._lanes.take(record.open, waited=True)
        if isinstance(turn, float):
            place.give_turn_back()
            return turn
        try:
            await place.take()
        except BaseException:
            self._lanes.give_back(turn, spent=False)
            raise
        return turn

    async def _near(self, record: SendRecord, place: Place) -> None:
        """Where a domain takes its mails quickly, its next turn comes sooner than who left the queue comes back."""
        if self._lanes.is_near(record.open, waited=record.turn):
            place.leave()
            await self._lanes.wait_near(record.open, waited=record.turn, ending=place.stop)
            if place.ending:
                place.give_turn_back()
                raise NoTurn("the account's work ends")

    async def _accounts(self, record: SendRecord, place: Place) -> None:
        if self._relays.away is None:
            await place.turn()
        if self._relays.just_lost:
            place.give_turn_back()
            raise NoTurn("the relay was lost")
        if self._clock.now() >= record.expires_at:
            # At once, before the next one begins to wait for this turn to be over: where more is asked for than the
            # rate lets go, most have expired by now.
            place.give_turn_back()
