"""Who is there → the accounts that run here: begun and ended as members.py decides. Used by app.py."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from service.clock import Clock
from service.fleet.members import Standing
from service.fleet.roster import Roster
from service.fleet.running import Running
from service.observe import metrics

T = TypeVar("T")


class Steering(Generic[T]):
    """This replica's share. `known`: rung once all accounts are known, and whether they shall run."""

    def __init__(self, roster: Roster[T], running: Running[T], clock: Clock, *, known: asyncio.Event) -> None:
        self._roster = roster
        self._members = roster.membership
        self._presence = roster.presence
        self._running = running
        self._clock = clock
        self._known = known

    async def run(self) -> None:
        """Begin and end accounts until cancelled."""
        await self._known.wait()
        await self._roster.joined.wait()
        # Who starts counts all who are there: alone, it begins at once.
        self._roster.count()
        kept: tuple[Standing, Mapping[str, str]] | None = None
        mine: Mapping[str, T] = {}
        taken = False
        while True:
            self._roster.bell.clear()
            if self._members.quiet_s(self._clock.monotonic()) == 0:
                self._roster.count()
            standing = self._standing()
            metrics.HAS_SHARE.set(standing in (Standing.ALONE, Standing.SHARING))
            settled, epoch = self._members.settled(standing), self._members.epoch
            owners = await self._roster.divide()
            # Renewals ring too, eight a time to live of each replica: 10,000 accounts are not compared for each.
            if kept is None or kept[0] is not standing or kept[1] is not owners:
                mine, taken = self._mine(standing, owners), False
                await self._running.keep(mine, silent_s=self._presence.silent_s())
                kept = (standing, owners)
            if settled is not None and epoch == self._members.epoch:
                self._settle(settled)
            if not taken and self._standing() is standing and self._members.may_take(standing):
                self._running.take(mine)
                taken = True
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s(standing)):
                    await self._roster.bell.wait()

    def _standing(self) -> Standing:
        return self._members.standing(since=self._presence.since, leased=self._presence.leased_s() > 0)

    def _mine(self, standing: Standing, owners: Mapping[str, str]) -> Mapping[str, T]:
        known = self._roster.known
        if standing is Standing.ALONE:
            return known
        if standing is Standing.CUT_OFF:
            # Not what waits for its turn, for minutes where there are many: another may have begun it by then.
            return {id: account for id, account in known.items() if id in self._running.accounts}
        if standing is Standing.OUT:
            return {}
        return {id: account for id, account in known.items() if owners.get(id) == self._presence.instance}

    def _settle(self, settled: int) -> None:
        """Others wait for what settles a change; the rest is said with the next renewal."""
        urgent = self._presence.said_settled < self._members.changed_seq <= settled
        self._presence.say(settled=settled, now=urgent)

    def _patience_s(self, standing: Standing) -> float | None:
        waits = [self._members.quiet_s(self._clock.monotonic())]
        if standing in (Standing.SHARING, Standing.ALONE):
            waits.append(self._presence.leased_s())
        return min((wait for wait in waits if wait is not None), default=None)
