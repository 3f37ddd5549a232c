"""This process's key in KV `mail-fleet`, with a time to live: who it is, and what it has settled.

Used by roster.py, which hears of the others' keys. It knows by its own clock until when the key surely is there.

All others wait for what a process has settled, and one that hears of no change settles none. So the key is not renewed
any more by a process that does not hear of its own renewals: it ends, and the others go on without this one.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from service.bus import Conflict, Entry, KeyValue
from service.clock import Clock
from service.errors import Permanent, Transient
from service.fleet.members import Member
from service.observe import log

# A killed process is missed at its key's end: the last renewal was an eighth of its life ago at the most, so NATS may
# choose another leader (9 s at the longest, nats-server's own limit) and few keys end over it.
RENEWALS_PER_TTL: Final = 8
# An outage is noticed, and its end: not as seldom as a key is renewed.
RETRIES_PER_TTL: Final = 15
# So much of the time to live is left when a process that cannot renew its key lets go: 1.3 s of the usual 10, and 2 s
# more pass before another begins (members.py).
MARGIN: Final = 2 / 15
# So long, and a time to live at the least, nothing need be heard: a watch that fell silent is noticed within 7 s, and
# begun anew 1 s later.
DEAF_S: Final = 10.0


class PresenceValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process says of itself.

    `boot` is new with every start; `since` the sequence at which its name came with this capacity (0: this very
    value's); `settled` the sequence up to which it has released what is not its own; `accounts` a digest of those it
    was given.
    """

    boot: str
    capacity: float = 1.0
    since: int = 0
    settled: int = 0
    accounts: str = ""


_VALUE: Final = msgspec.json.Decoder(PresenceValue)


def member_of(instance: str, value: bytes, seq: int) -> Member:
    """A key's value → who it is. One that cannot be read is somebody all the same."""
    try:
        said = _VALUE.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        said = PresenceValue("")
    capacity = said.capacity if said.capacity > 0 else 1.0
    return Member(instance, said.boot, capacity, said.since or seq, said.settled, said.accounts)


def _nothing() -> None:
    """Nobody listens."""


class Presence:
    """`writer` is the name under which this process writes: `instance/boot`; `since`: when its name came.

    `made_anew` is called where the bucket is another one than before: sequences that were heard of mean nothing in it.
    """

    def __init__(
        self, bucket: KeyValue, *, instance: str, boot: str, capacity: float, ttl_s: float, clock: Clock
    ) -> None:
        self.instance = instance
        self.boot = boot
        self.writer = f"{instance}/{boot}"
        self.since = 0
        self._bucket = bucket
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._clock = clock
        self._settled = 0
        self._accounts = ""
        self._revision = 0
        # The last sequence that was written or heard of: whatever is written later comes after it.
        self._last = 0
        self.made_anew: Callable[[], None] = _nothing
        self._began = 0.0
        self._leased_until = 0.0
        # The oldest renewal of which the watch has not told, and for how long others have succeeded since.
        self._unheard = 0
        self._unheard_s = 0.0
        self._renewing = asyncio.Lock()
        self._due = asyncio.Event()

    def leased_s(self) -> float:
        """Seconds for which the key surely is there still; 0 where it may be gone."""
        return max(0.0, self._leased_until - self._clock.monotonic())

    def silent_s(self) -> float:
        """Seconds since a renewal was begun that succeeded."""
        return self._clock.monotonic() - self._began

    def say(self, *, settled: int | None = None, accounts: str | None = None, now: bool = False) -> None:
        """Change what the key says, with the next renewal; `now`: at once."""
        self._settled = self._settled if settled is None else max(self._settled, settled)
        self._accounts = self._accounts if accounts is None else accounts
        if now:
            self._due.set()

    @property
    def said_settled(self) -> int:
        """What was said last."""
        return self._settled

    def heard(self, seq: int) -> None:
        """The watch has told of all changes up to this one."""
        self._last = max(self._last, seq)
        if seq >= self._unheard:
            self._unheard, self._unheard_s = 0, 0.0

    def heard_all(self, seq: int) -> None:
        """The watch has told of all keys as they are at this sequence."""
        self.heard(max(self._unheard, seq))

    @property
    def deaf(self) -> bool:
        """Whether this process renews its key, and has not heard of it for long."""
        return self._unheard_s >= max(self._ttl_s, DEAF_S)

    def is_others(self, member: Member, seq: int) -> bool:
        """Whether another process has taken this one's name since; who had it before is no other."""
        return 0 < self._revision < seq and member.boot not in ("", self.boot)

    async def take(self) -> None:
        """Take the key, from an older process of the same name too: a killed one is back at once. Raises Transient."""
        for _ in range(5):
            entry = await self._bucket.get(self.instance)
            began = self._clock.monotonic()
            # Who comes in another's place takes its accounts over, and moves no other.
            since = self._inherited(entry) if entry is not None else 0
            if entry is None or entry.revision < self._revision:
                # What was settled may be another bucket's; and who comes anew says again what it has settled.
                self._settled = 0
            last = self._last
            try:
                if entry is None:
                    revision = await self._bucket.create(self.instance, self._value(since))
                else:
                    revision = await self._bucket.update(self.instance, self._value(since), entry.revision)
            except Conflict:
                continue
            self.since = since or revision
            if revision <= last:
                self._begin_anew()
            self._took(revision, began)
            return
        raise Transient("the key changes all the time", where=self.instance)

    def _written(self, entry: Entry) -> Member:
        return member_of(self.instance, entry.value, entry.revision)

    def _inherited(self, entry: Entry) -> int:
        there = self._written(entry)
        return there.since if there.boot and there.capacity == self._capacity else 0

    async def run(self) -> None:
        """Take the key and renew it until cancelled. Raises Permanent when another process has taken the name.

        Begun again after a bug it goes on with the key that it has: another process may have the name by then.
        """
        pause_s, given_up = self._ttl_s / RENEWALS_PER_TTL if self.since else 0.0, False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._due.wait()
            self._due.clear()
            if self.deaf:
                pause_s = self._ttl_s / RETRIES_PER_TTL
                if not given_up:
                    log.error("presence_given_up", remedy="fleet_not_heard says why; see the operations guide")
                given_up = True
                continue
            given_up = False
            try:
                await (self.renew() if self.since else self.take())
                pause_s = self._ttl_s / RENEWALS_PER_TTL
            except Transient as exc:
                log.warning("presence_not_renewed", error=str(exc))
                pause_s = self._ttl_s / RETRIES_PER_TTL

    async def renew(self) -> None:
        """Write the key again. Raises Permanent when another process has taken the name."""
        async with self._renewing:
            began = self._clock.monotonic()
            try:
                revision = await self._bucket.update(self.instance, self._value(self.since), self._revision)
            except Conflict:
                entry = await self._bucket.get(self.instance)
                if entry is not None and self.is_others(self._written(entry), entry.revision):
                    raise self.double() from None
                # Expired while NATS was away, or our own write whose answer was lost.
                await self.take()
            else:
                self._took(revision, began)

    def _begin_anew(self) -> None:
        """What was settled and heard of was so in a bucket that is gone."""
        log.warning("fleet_made_anew", remedy="nothing to do; accounts are divided anew")
        self._settled = self._revision = self._last = self._unheard = 0
        self._unheard_s = 0.0
        self.made_anew()

    def _took(self, revision: int, began: float) -> None:
        if self._unheard:
            # While NATS was away there was nothing to hear: a pause counts once.
            self._unheard_s += min(began - self._began, self._ttl_s / RENEWALS_PER_TTL)
        else:
            self._unheard = revision
        self._revision, self._began = revision, began
        self._last = max(self._last, revision)
        self._leased_until = began + self._ttl_s * (1 - MARGIN)

    def _value(self, since: int) -> bytes:
        return msgspec.json.encode(PresenceValue(self.boot, self._capacity, since, self._settled, self._accounts))

    async def is_alive(self, writer: str) -> bool:
        """Whether the process that writes as `instance/boot` is there. Raises Transient."""
        instance, _, boot = writer.rpartition("/")
        entry = await self._bucket.get(instance)
        return entry is not None and member_of(instance, entry.value, entry.revision).boot == boot

    async def leave(self) -> None:
        """Give the name back, where it is still ours; whoever takes it meanwhile keeps it."""
        with contextlib.suppress(Transient, Conflict):
            entry = await self._bucket.get(self.instance)
            if entry is not None and self._written(entry).boot == self.boot:
                await self._bucket.remove(self.instance, entry.revision)

    def double(self) -> Permanent:
        """What a process that finds another under its name ends with."""
        return Permanent(
            f"another process runs as instance {self.instance}",
            where="instance",
            remedy="give each process its own `instance` in its settings",
        )
