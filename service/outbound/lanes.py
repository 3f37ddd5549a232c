"""How fast an account's mails go to each domain of recipients: limits of the settings, and what was heard of it.

Used by turns.py, which takes a turn before an attempt, and by mailing.py for messages to each. Who has no turn leaves
the queue until one is to be expected: it holds up nobody's mail to another domain. But for a domain whose mails are
through in a moment: who left the queue comes back after a second or more, sixty mails one after the other took 14 s and
take 0.1. What is said of who sends is pace.py's affair (blame.py).
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from math import inf
from typing import Final

import msgspec

from service.clock import Clock
from service.observe import log
from service.outbound.blame import ALIKE_LIMIT, domain_of, is_by_policy, is_too_fast
from service.outbound.options import ANY, NO_LIMIT, Limit
from service.outbound.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S
from service.outbound.retry import Said, Verdict
from service.tasks import TaskGroup

# What falls due in one second may go together: schedules fire in no finer steps.
BURST_S: Final = 1.0
# A lane that is full is looked at again after this, or after as long as those before will take.
FULL_S: Final = 1.0
FIRST_GUESS_S: Final = 0.1
# A lane that is full is waited for in hand, and no longer, where it is one's turn so soon by what its last mails took.
# Whoever came back for his turn waits longer, and one of those, where others are in hand, as long as a mailing is that
# would else have all turns of a domain whose mails take their time.
SOON_S: Final = 0.5
SOON_AGAIN_S: Final = 5.0
FIRST_AGAIN_S: Final = 15.0
# Domains of which something is remembered. At the limit so many are looked at to forget one: not all, for each new one.
HEARD_LIMIT: Final = 10_000
LOOK_AT: Final = 16


class _Lane:
    """One domain's: when its next mail may go, up to when turns are promised, and who is under way.

    `again_until` is up to when those have promises who came back too early: each has one of his own, for all that fell
    due while nobody was there come together, and must not do so again for each that goes.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.learned_s = 0.0
        self.refused = 0
        self.next_at = float("-inf")
        self.promised_until = float("-inf")
        self.again_until = float("-inf")
        self.under_way = 0
        self.took_s = FIRST_GUESS_S
        self.through = 0
        # Who is called once it is full no longer, in the order in which they came: those who came now, and those who
        # came back for their turn, one of each after the other. And since when nobody went or was through.
        self.waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self.last_called = False
        # Who was called and did not come yet: the room is his.
        self.coming = 0
        self.still_since = float("-inf")

    @property
    def interval_s(self) -> float:
        return max(self.limit.interval_s, self.learned_s)

    @property
    def full(self) -> bool:
        return 0 < self.limit.at_once <= self.under_way + self.coming

    @property
    def busy_until(self) -> float:
        """Up to when it is known what goes."""
        return max(self.next_at, self.promised_until, self.again_until)

    def wait_s(self, now: float, *, waited: bool) -> float:
        """How long until a turn is to be expected; 0: now. Whoever waited goes before who comes now."""
        early_s = max(0.0, BURST_S - self.interval_s)
        if not self.full and (self.next_at if waited else self.busy_until) <= now + early_s:
            return 0.0
        promised = self.again_until if waited else self.busy_until
        return max(self.next_at, promised, now + FULL_S if self.full else now) - now

    def promise(self, at: float, *, waited: bool) -> None:
        """Somebody comes again then."""
        until = at + max(self.interval_s, self.took_s / self.limit.at_once if self.limit.at_once else 0.0)
        if waited:
            self.again_until = max(self.again_until, until)
        else:
            self.promised_until = max(self.promised_until, until)

    def take(self, now: float) -> "Slot":
        """Somebody goes; gives when, for `leave`.

        Who was promised a turn comes a little after it, never before: the next one's counts from the turn, or each
        would make all behind him as late. After a turn that nobody used it counts from now.
        """
        before = self.next_at
        self.under_way += 1
        self.still_since = now
        if self.interval_s:
            unused = now - self.next_at > max(BURST_S, self.interval_s)
            from_at = now if unused else max(self.next_at, now - min(BURST_S, self.interval_s))
            self.next_at = from_at + self.interval_s
        return Slot(before, self.next_at)

    def leave(self, now: float, took_s: float, slot: "Slot", *, spent: bool) -> None:
        """Somebody is through, in so long; `spent`: his mail went. Else the next one goes, if nobody did since."""
        self.under_way = max(0, self.under_way - 1)
        self.still_since = now
        if spent:
            self.through += 1
            self.took_s += (took_s - self.took_s) / min(8, self.through)
        elif self.next_at == slot.after:
            self.next_at = slot.before
        self.call()

    def call(self) -> None:
        """Wake the next one of those who wait, where there is room for one."""
        for waited in (not self.last_called, self.last_called):
            if self.waiting[waited] and not self.full:
                self.waiting[waited].popleft().set_result(None)
                self.last_called = waited
                self.coming += 1
                return

    def soon_s(self, *, waited: bool) -> float:
        """How long who begins to wait for it now does so in hand."""
        if not waited:
            return SOON_S
        came_now, came_back = self.waiting
        return FIRST_AGAIN_S if came_now and not came_back else SOON_AGAIN_S

    def is_quick(self, now: float, *, waited: bool) -> bool:
        """Whether who finds it full has his turn soon."""
        longest_s = self.soon_s(waited=waited)
        ours, others = len(self.waiting[waited]), len(self.waiting[not waited])
        ahead = ours + min(ours + 1, others)
        return (ahead + 1) * self.took_s <= longest_s * self.limit.at_once and now - self.still_since <= longest_s

    def slow_down(self) -> None:
        """It was heard to be too much for the domain."""
        self.learned_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self.learned_s * 2))

    def speed_up(self) -> None:
        """It took a mail."""
        self.refused = 0
        self.learned_s = self.learned_s / 2 if self.learned_s > SHORTEST_PAUSE_S else 0.0

    @property
    def in_use(self) -> bool:
        """Whether somebody goes, is called, or waits for that."""
        return bool(self.under_way or self.coming or any(self.waiting))

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember of it."""
        return not self.in_use and not self.learned_s and self.busy_until <= now


class Slot(msgspec.Struct, frozen=True):
    """When a lane's next mail might have gone before a turn was taken, and after it."""

    before: float
    after: float


class Turn(msgspec.Struct, frozen=True):
    """A turn that was taken, in all lanes of a mail, by their domains; to be given back."""

    slots: Mapping[str, Slot]
    at: float


# Nearly all accounts have no limits, and no domain that was heard to be slow.
NOWHERE: Final[frozenset[str]] = frozenset()
NO_TURN: Final = Turn({}, 0.0)


class Lanes:
    """One account's. `limits`: by domain, in lower case; `*` is each domain that has none of its own."""

    def __init__(self, account: str, limits: Mapping[str, Limit], clock: Clock) -> None:
        self._account = account
        self._limits = limits
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._any = limits.get(ANY, NO_LIMIT)

    def ask(self, recipients: Iterable[str], *, waited: bool, within_s: float = inf) -> float:
        """How many seconds until a turn for a mail to all of them is to be expected, and promised; 0: there is one now.

        `waited`: it was told so before. `within_s`: whoever asks comes back for no turn that is later, so it is not
        promised.
        """
        lanes = [self._lane(domain) for domain in self._counted(recipients)]
        now = self._clock.monotonic()
        waits = [lane.wait_s(now, waited=waited) for lane in lanes]
        longest = max(waits, default=0.0)
        # In the others nothing is promised: who comes now to one of them must not wait for the slowest.
        for lane, wait_s in zip(lanes, waits, strict=True):
            if wait_s == longest > 0 and longest <= within_s:
                lane.promise(now + wait_s, waited=waited)
        return longest

    def take(self, recipients: Iterable[str], *, waited: bool, within_s: float = inf) -> Turn | float:
        """That turn, or what `ask` says. Decides at once."""
        domains = self._counted(recipients)
        if (wait_s := self.ask(domains, waited=waited, within_s=within_s)) > 0:
            return wait_s
        now = self._clock.monotonic()
        return Turn({domain: self._lane(domain).take(now) for domain in domains}, now)

    async def wait(self, recipients: Collection[str], turn: Turn | float) -> Turn:
        """A turn, as soon as there is one, of which `take` gave `turn`."""
        while isinstance(turn, float):
            until = self._clock.monotonic() + turn
            # There may be room by now that nobody was promised.
            turn = self.take(recipients, waited=False, within_s=0.0)
            while isinstance(turn, float) and (left_s := until - self._clock.monotonic()) > 0:
                await self._called(self._full(recipients), left_s, waited=False)
                # Whoever is called before his time keeps that, and is promised no other.
                late = self._clock.monotonic() >= until and self._full(recipients) is None
                turn = self.take(recipients, waited=True, within_s=inf if late else 0.0)
        return turn

    def is_near(self, recipients: Collection[str], *, waited: bool) -> bool:
        """Whether a lane of theirs is full, and they had better wait for it in hand."""
        lane = self._full(recipients)
        return lane is not None and lane.is_quick(self._clock.monotonic(), waited=waited)

    async def wait_near(self, recipients: Collection[str], *, waited: bool, ending: asyncio.Event) -> None:
        """Until it is not so, which is not long, or the account's work ends."""
        lane, began = self._full(recipients), self._clock.monotonic()
        until = began + lane.soon_s(waited=waited) if lane is not None else began
        while (left_s := until - self._clock.monotonic()) > 0 and self.is_near(recipients, waited=waited):
            if ending.is_set():
                return
            await self._called(self._full(recipients), left_s, waited=waited, ending=ending)

    async def _called(
        self, lane: _Lane | None, longest_s: float, *, waited: bool, ending: asyncio.Event | None = None
    ) -> None:
        """Until there is room in a lane that is full, and it is one's turn; or so long, or the account's work ends."""
        if lane is None:
            await self._clock.sleep(longest_s)
            return
        loop, queue = asyncio.get_running_loop(), lane.waiting[waited]
        called = loop.create_future()
        queue.append(called)
        try:
            async with TaskGroup() as group:
                others: list[asyncio.Task[object]] = [group.create_task(self._clock.sleep(longest_s), name="turn")]
                if ending is not None:
                    others.append(group.create_task(ending.wait(), name="ending"))
                await asyncio.wait((called, *others), return_when=asyncio.FIRST_COMPLETED)
                for one in others:
                    one.cancel()
        except BaseException:
            if called.done():
                lane.coming -= 1
                lane.call()  # somebody else's then
            else:
                queue.remove(called)
            raise
        if called.done():
            lane.coming -= 1
            # Who does not take the room before he waits for anything else leaves it to the next one.
            loop.call_soon(lane.call)
        else:
            queue.remove(called)

    def give_back(self, turn: Turn, *, spent: bool) -> None:
        """The mail is through; `spent`: it went to the relay."""
        now = self._clock.monotonic()
        for domain, slot in turn.slots.items():
            if (lane := self._lanes.get(domain)) is not None:
                lane.leave(now, now - turn.at, slot, spent=spent)

    def heard(self, said: Mapping[str, Said]) -> None:
        """Learn from what was said of each recipient of a mail."""
        by_domain: dict[str, list[Said]] = {}
        for recipient, one in said.items():
            by_domain.setdefault(domain_of(recipient), []).append(one)
        for domain, words in by_domain.items():
            if any(one.verdict is Verdict.ACCEPTED for one in words):
                if (lane := self._lanes.get(domain)) is not None:
                    lane.speed_up()
            elif any(one.of_recipient and is_too_fast(one) for one in words):
                self._slow_down(domain)
            elif all(one.of_recipient and is_by_policy(one) for one in words):
                lane = self._lane(domain)
                lane.refused += 1
                if lane.refused >= ALIKE_LIMIT:
                    self._slow_down(domain)

    def _slow_down(self, domain: str) -> None:
        lane = self._lane(domain)
        if not lane.learned_s:
            log.info("domain_slowed", account=self._account, domain=domain)
        lane.slow_down()

    def _full(self, recipients: Iterable[str]) -> _Lane | None:
        """The first lane of theirs that is."""
        lanes = (self._lanes.get(domain) for domain in self._counted(recipients))
        return next((lane for lane in lanes if lane is not None and lane.full), None)

    def _counted(self, recipients: Iterable[str]) -> frozenset[str]:
        if not self._lanes and not self._limits:
            return NOWHERE
        return frozenset(filter(self._counts, map(domain_of, recipients)))

    def _counts(self, domain: str) -> bool:
        return domain in self._lanes or domain in self._limits or self._any != NO_LIMIT

    def _lane(self, domain: str) -> _Lane:
        lane = self._lanes.get(domain)
        if lane is None:
            if len(self._lanes) >= HEARD_LIMIT:
                self._forget()
            lane = self._lanes[domain] = _Lane(self._limits.get(domain, self._any))
        return lane

    def _forget(self) -> None:
        """Of those that were not looked at for longest: who says nothing, or where all do the one with least to say."""
        now = self._clock.monotonic()
        looked = {domain: self._lanes.pop(domain) for domain in list(islice(self._lanes, LOOK_AT))}
        silent = [domain for domain, lane in looked.items() if lane.is_idle(now)]
        for domain in silent or [min(looked, key=lambda domain: (looked[domain].in_use, looked[domain].busy_until))]:
            del looked[domain]
        self._lanes.update(looked)
