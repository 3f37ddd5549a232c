"""The fleet's keys → who is there, and who has which account. Used by steer.py, and by whoever must find an account.

Ownership is a hint: the log's fence is the guarantee (docs/decisions/0001-log-is-the-cursor.md), so a wrong belief
costs a refused commit.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from hashlib import sha256
from typing import Final, Generic, TypeVar

from service.bus import KeyChange, KeyValue
from service.clock import Clock
from service.errors import Transient
from service.fleet.assign import owner
from service.fleet.members import Membership
from service.fleet.presence import Presence, member_of
from service.observe import log, metrics

LISTEN_AGAIN_S: Final = 1.0
# Accounts times replicas that are looked at in one turn of the event loop: 1 ms.
DRAWS_AT_ONCE: Final = 1_000
# Within this time a settings file that was changed has come to all processes, and an account of the bus to each.
DIFFER_LIMIT_S: Final = 60.0

T = TypeVar("T")


class Roster(Generic[T]):
    """All replicas that are there, and which of the `known` accounts each has. `bell` rings for whatever is new.

    `heard`: all keys were heard of; `joined`: and this process's own is among them.
    """

    def __init__(self, bucket: KeyValue, presence: Presence, clock: Clock) -> None:
        self.presence = presence
        self._bucket = bucket
        self._clock = clock
        self.membership = Membership(presence.instance)
        self.heard = asyncio.Event()
        # This process's own key was heard of, and so all that came before it.
        self.joined = asyncio.Event()
        self.bell = asyncio.Event()
        self._moved = asyncio.Event()
        self._known: Mapping[str, T] = {}
        self._owners: dict[str, str] = {}
        self._divided = False
        # Since when not all know the same accounts; and whether that was said.
        self._differ_since: float | None = None
        self._differ_said = False
        presence.made_anew = self._begin_anew

    @property
    def known(self) -> Mapping[str, T]:
        """All accounts, whoever has them."""
        return self._known

    def know(self, accounts: Mapping[str, T]) -> None:
        """All accounts from now on; those that are others than before are begun anew."""
        self._known = accounts
        self._divided = False
        digest = sha256("\0".join(sorted(accounts)).encode()).hexdigest()[:16]
        self.presence.say(accounts=digest, now=True)
        self.bell.set()

    # -- what others ask ---------------------------------------------------------------------------------------

    def owner(self, account: str) -> str | None:
        """The instance that has an account, or would have one that is not known; None where nobody counts yet."""
        return self._owners.get(account) or owner(account, self.membership.replicas())

    def owners(self) -> Mapping[str, str]:
        """Account → instance, of all that are known."""
        return self._owners

    def shares(self) -> dict[str, int]:
        """Instance → how many accounts it has, of all that count."""
        counts = Counter(self._owners.values())
        return {replica.instance: counts[replica.instance] for replica in self.membership.replicas()}

    async def wait_moved(self, limit_s: float) -> None:
        """Until others count than now, so long at the most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._moved.wait()

    async def is_rival(self, account: str, writer: str) -> bool:
        """Whether the process that writes as `instance/boot` lives, and the account is its own. Raises Transient.

        Who hears nothing of the fleet cannot say whose it is, and takes nothing from who writes.
        """
        theirs = self.presence.deaf or self.owner(account) == writer.rpartition("/")[0]
        return theirs and await self.presence.is_alive(writer)

    def decides_on(self, account: str) -> bool:
        """Whether it is for this replica to say that an account does not exist: all must know the same."""
        return self.membership.alike() and self.owner(account) == self.presence.instance

    # -- hearing -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Hear of all keys, for ever. Raises Permanent when another process has taken this one's name."""
        while True:
            try:
                async with aclosing(self._bucket.watch()) as watch:
                    await self._follow(watch)
            except Transient as exc:
                log.warning("fleet_not_heard", error=str(exc))
                await self._clock.sleep(LISTEN_AGAIN_S)

    async def _follow(self, watch: AsyncIterator[list[KeyChange]]) -> None:
        """Hear what a watch tells, until the bucket is another one than it began with."""
        epoch, first = self.membership.epoch, True
        async for changes in watch:
            if self.membership.epoch != epoch:
                return
            if first:
                self._hear_all(changes)
            else:
                for change in changes:
                    self._hear(change)
            first = False

    def _begin_anew(self) -> None:
        self.membership.begin_anew()
        self.bell.set()

    def _hear_all(self, changes: list[KeyChange]) -> None:
        last = max((change.seq for change in changes), default=0)
        there = [member_of(one.key, one.value, one.seq) for one in changes if one.value is not None]
        self.membership.heard_all(there, seq=last, now=self._clock.monotonic())
        for change in changes:
            self._check_name(change)
        self.presence.heard_all(last)
        self._compare()
        self.heard.set()
        self.bell.set()

    def _hear(self, change: KeyChange) -> None:
        member = None if change.value is None else member_of(change.key, change.value, change.seq)
        self.membership.heard(change.seq, change.key, member, now=self._clock.monotonic())
        self._check_name(change)
        self.presence.heard(change.seq)
        self._compare()
        self.bell.set()

    def _compare(self) -> None:
        """Say once that some know accounts which others do not, and so have nobody: each renewal is a look."""
        now = self._clock.monotonic()
        if self.membership.alike():
            self._differ_since, self._differ_said = None, False
        elif self._differ_since is None:
            self._differ_since = now
        elif now - self._differ_since > DIFFER_LIMIT_S and not self._differ_said:
            self._differ_said = True
            log.warning("fleet_accounts_differ", remedy="give all processes under one prefix the same accounts")

    def _check_name(self, change: KeyChange) -> None:
        if change.key != self.presence.instance or change.value is None:
            return
        there = member_of(change.key, change.value, change.seq)
        if self.presence.is_others(there, change.seq):
            raise self.presence.double()
        if there.boot == self.presence.boot:
            self.joined.set()

    # -- dividing ----------------------------------------------------------------------------------------------

    def count(self) -> None:
        """From now on, who is there counts."""
        self.membership.count()
        self._divided = False
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def divide(self) -> Mapping[str, str]:
        """Account → instance, found anew where anything counts that did not; a few at a time."""
        if self._divided:
            return self._owners
        self._divided = True
        known, replicas = self._known, self.membership.replicas()
        owners: dict[str, str] = {}
        for number, account in enumerate(known):
            if (has := owner(account, replicas)) is not None:
                owners[account] = has
            if number * len(replicas) % DRAWS_AT_ONCE < len(replicas):
                await asyncio.sleep(0)
        self._owners = owners
        metrics.REPLICAS.set(len(replicas))
        log.info("fleet_divided", accounts=len(known), replicas=self.shares())
        return owners
