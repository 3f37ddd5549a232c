"""How fast an account's mails go to each domain of recipients: limits of the settings, and what was heard of it.

Used by deliver.py, which takes a turn before an attempt, and by attempt.py for messages to each. Who has no turn leaves
the queue until one is to be expected: it holds up nobody's mail to another domain. What is said of
who sends is pace.py's affair (blame.py).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from service.clock import Clock
from service.outbound.blame import ALIKE_LIMIT, domain_of, is_by_policy, is_too_fast
from service.outbound.options import ANY, NO_LIMIT, Limit
from service.outbound.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S
from service.outbound.retry import Said, Verdict

# What falls due in one second may go together: schedules fire in no finer steps.
BURST_S: Final = 1.0
# A lane that is full is looked at again after this, or after as long as those before will take.
FULL_S: Final = 1.0
FIRST_GUESS_S: Final = 0.1
# Domains that were heard to be slow; the one that was heard longest ago is forgotten first.
HEARD_LIMIT: Final = 10_000


class _Lane:
    """One domain's: when its next mail may go, up to when turns are promised to who waits, and who is under way."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.learned_s = 0.0
        self.refused = 0
        self.next_at = float("-inf")
        self.promised_until = float("-inf")
        self.under_way = 0
        self.took_s = FIRST_GUESS_S

    @property
    def interval_s(self) -> float:
        return max(self.limit.interval_s, self.learned_s)

    @property
    def full(self) -> bool:
        return 0 < self.limit.at_once <= self.under_way

    def wait_s(self, now: float, *, waited: bool) -> float:
        """How long until a turn is to be expected; 0: now. Whoever waited goes before who comes now."""
        promised = float("-inf") if waited else self.promised_until
        if self.full:
            return max(FULL_S, promised - now)
        at = max(self.next_at, promised)
        early_s = max(0.0, BURST_S - self.interval_s)
        return at - now if at > now + early_s else 0.0

    def promise(self, at: float) -> None:
        """Somebody comes again then."""
        step_s = self.interval_s or self.took_s / max(1, self.limit.at_once)
        self.promised_until = max(self.promised_until, at + step_s)

    def take(self, now: float) -> None:
        """Somebody goes."""
        self.under_way += 1
        if self.interval_s:
            self.next_at = max(self.next_at, now) + self.interval_s

    def slow_down(self) -> None:
        """It was heard to be too much for the domain."""
        self.learned_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self.learned_s * 2))

    def speed_up(self) -> None:
        """It took a mail."""
        self.refused = 0
        self.learned_s = self.learned_s / 2 if self.learned_s > SHORTEST_PAUSE_S else 0.0

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember of it."""
        return not self.under_way and not self.learned_s and max(self.next_at, self.promised_until) <= now


class Turn(msgspec.Struct, frozen=True):
    """A turn that was taken, in all lanes of a mail; to be given back."""

    domains: frozenset[str]
    at: float


NO_TURN: Final = Turn(frozenset(), 0.0)


class Lanes:
    """One account's. `limits`: by domain, in lower case; `*` is each domain that has none of its own."""

    def __init__(self, limits: Mapping[str, Limit], clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._any = limits.get(ANY, NO_LIMIT)

    def ask(self, recipients: Iterable[str], *, waited: bool) -> float:
        """How many seconds until a turn for a mail to all of them is to be expected, and promised; 0: there is one now.

        `waited`: it was told so before.
        """
        lanes = [self._lane(domain) for domain in self._counted(recipients)]
        now = self._clock.monotonic()
        wait_s = max((lane.wait_s(now, waited=waited) for lane in lanes), default=0.0)
        if wait_s > 0 and not waited:
            for lane in lanes:
                lane.promise(now + wait_s)
        return wait_s

    def take(self, recipients: Iterable[str], *, waited: bool) -> Turn | float:
        """That turn, or what `ask` says. Decides at once."""
        domains = self._counted(recipients)
        if (wait_s := self.ask(domains, waited=waited)) > 0:
            return wait_s
        now = self._clock.monotonic()
        for domain in domains:
            self._lane(domain).take(now)
        return Turn(domains, now)

    async def wait(self, recipients: Collection[str], turn: Turn | float) -> Turn:
        """A turn, as soon as there is one, of which `take` gave `turn`."""
        while isinstance(turn, float):
            await self._clock.sleep(turn)
            turn = self.take(recipients, waited=True)
        return turn

    def give_back(self, turn: Turn) -> None:
        """The mail is on its way, or is not."""
        took_s = self._clock.monotonic() - turn.at
        for domain in turn.domains:
            if (lane := self._lanes.get(domain)) is not None:
                lane.under_way = max(0, lane.under_way - 1)
                lane.took_s += (took_s - lane.took_s) / 8

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
                self._lane(domain).slow_down()
            elif all(one.of_recipient and is_by_policy(one) for one in words):
                lane = self._lane(domain)
                lane.refused += 1
                if lane.refused >= ALIKE_LIMIT:
                    lane.slow_down()

    def _counted(self, recipients: Iterable[str]) -> frozenset[str]:
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
        """Lanes that say nothing; where all say something, the one that was made first."""
        now = self._clock.monotonic()
        idle = [domain for domain, lane in self._lanes.items() if lane.is_idle(now)]
        for domain in idle or [next(iter(self._lanes))]:
            del self._lanes[domain]
