"""An attempt of a request with a message for each recipient: a few at a time, each as a mail of its own.

Used by attempt.py. It is in hand for a while only: then it comes back behind others.
docs/decisions/0024-a-message-for-each.md
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from msgspec.structs import replace

from service.bus import Conflict
from service.clock import Clock
from service.contract import Recipient, RequestProblems, for_one, missing_blobs
from service.errors import verdict_of
from service.observe import metrics, step
from service.outbound.blame import domain_of
from service.outbound.evidence import Evidence
from service.outbound.lanes import Lanes, Turn
from service.outbound.mail import own_message_id
from service.outbound.options import TOGETHER
from service.outbound.pace import Pace
from service.outbound.places import Place
from service.outbound.proof import mark_of
from service.outbound.relays import Relays
from service.outbound.retry import Decision, Phase, Said, Verdict
from service.outbound.sends import Sends
from service.outbound.settle import Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.task import Steps, Task, mails_at_once
from service.outbound.turns import NEAR_S
from service.smtp import Reply, TurnedAway
from service.tasks import TaskGroup

# So long a request is in hand, and the part that is under way then to its end. Then it comes back behind whoever waits:
# for a place in hand, for memory. To read it again costs little beside the mails that go in such a time.
IN_HAND_S: Final = 15.0
# Where the account's work ends, mails under way may be answered for so long: of FINISH_TIMEOUT_S in sender.py, the rest
# is for storing what was said of the others.
ENDING_S: Final = 5.0
# Of a mailing several mails may come back in the same moment; after so many it waits as if another process had it.
REPORTS_TOGETHER: Final = 5


class Mailings:
    """Those of one account."""

    def __init__(
        self,
        sends: Sends,
        settler: Settler,
        relays: Relays,
        suppressions: Suppressions,
        evidence: Evidence,
        lanes: Lanes,
        pace: Pace,
        steps: Steps,
        clock: Clock,
    ) -> None:
        self._sends = sends
        self._settler = settler
        self._relays = relays
        self._suppressions = suppressions
        self._evidence = evidence
        self._lanes = lanes
        self._pace = pace
        self._steps = steps
        self._clock = clock

    async def make(self, task: Task, place: Place) -> None:
        """A few at a time, for a while; then whoever waits comes back, and others have their turn.

        Between two parts the record is as after any attempt: if this process ends there, whoever was not tried yet
        waits for the next one. Raises Conflict, Transient.
        """
        before, attempt = task.record, task.record.attempt + 1
        if problems := missing_blobs(task.request, task.bundle.blobs):
            await self._steps.refuse(task, problems)
            return
        # Each mail takes a place like a request of its own.
        place.leave()
        until = self._clock.monotonic() + IN_HAND_S
        waiting = [who for who in before.trying if who in before.pending] or list(before.pending)
        turns = _Turns(self._lanes, self._clock, waited=before.turn)
        to, late = {one.email: one for one in task.request.to}, False
        while waiting and not (late or place.ending or self._nobody_is_there(task)) and self._left_s(task) > 0:
            part = await self._part(to, waiting, turns, place)
            if not part:
                break
            try:
                waiting = await self._try(task, part, waiting, attempt, place)
            finally:
                for one in part:
                    self._give_back(one)
            # Nor does it keep its memory where the account's next turn is far.
            late = self._clock.monotonic() >= until or self._pace.interval_s > NEAR_S
        place.give_turn_back()
        if not waiting:
            await self._settler.go_on(task.key, task.record)
            await task.job.done()
        elif task.revision or turns.wait_s(waiting):
            await self._leave(task, waiting, turns, tried=task.record.attempt == attempt)
        else:
            # Nobody was tried, and the queue alone knows of it. What is in the outbox gets the same name again.
            await task.job.give_back()

    def _nobody_is_there(self, task: Task) -> bool:
        """Whether the relays went away since it began: who was not tried yet need not hear of it."""
        return self._relays.away is not None and task.revision > 0

    async def _part(
        self, to: Mapping[str, Recipient], waiting: Sequence[str], turns: "_Turns", place: Place
    ) -> list["_Mailing"]:
        """Who is tried next: those whose turn is near, and who gets nothing. Nobody: all of them come later."""
        interval_s = self._pace.interval_s
        count = min(TOGETHER, 1 + int(NEAR_S / interval_s)) if interval_s else TOGETHER
        part: list[_Mailing] = []
        while not part and (first := list(islice(filter(turns.may_be_near, waiting), count))):
            barred = await self._suppressions.among(first)
            for who in first:
                if who in barred:
                    part.append(_Mailing(to[who], place, barred=barred[who]))
                elif (turn := turns.take(who)) is not None:
                    part.append(_Mailing(to[who], place.another(), turn))
        return part

    async def _try(
        self, task: Task, part: Sequence["_Mailing"], waiting: Sequence[str], attempt: int, place: Place
    ) -> list[str]:
        """An intent for them, their mails, their outcome; gives who waits then."""
        now = [one.recipient.email for one in part]
        barred = {one.recipient.email: one.barred for one in part if one.barred is not None}
        tried = frozenset(now)
        others = [who for who in waiting if who not in tried]

        async def stand() -> None:
            intent = task.intent(attempt, trying=now, refused=barred)
            task.revision = await self._sends.put(task.key, intent, task.revision)
            task.record = intent

        if others:
            # Before the intent: where this fails, nobody's mail is in doubt.
            task.record = await self._settler.kept(task.record, task.bundle)
        step("intent.before")
        await self._past_reports(task, stand)
        step("intent.done")
        # Only now: as long as the intent did not stand, a report could be written into the record.
        said = barred | await self._evidence.of_part(task.record)
        # Who gets none needs no turn, and another one of this part may wait for his.
        for one in part:
            if one.recipient.email in said:
                self._give_back(one)
        said |= await self._ask_for_each(task, [one for one in part if one.recipient.email not in said], place)
        step("replies")
        if not place.ending:  # a mailbox may take its time; it is looked into before the next attempt, too
            said = await self._evidence.of_attempt(task.record, said)
        # Nobody who was not asked is in doubt.
        task.record = changed(task.record, trying=[who for who in now if who in said])
        left = [who for who in now if who not in said] + others
        try:
            settled = await self._steps.told(task, self._decide(task, said, attempt, left), attempt)
        except Conflict:
            # A cancellation takes out whoever was not tried yet, and nobody else.
            record, task.revision = await self._sends.get(task.key)
            if record is None or record.others or not record.cancelled or record.owner != task.record.owner:
                raise
            task.record = changed(record, outbox=task.record.outbox, trying=task.record.trying)
            left = [who for who in left if who in now]
            settled = await self._steps.told(task, self._decide(task, said, attempt, left), attempt)
        task.record, task.revision = settled.record, settled.revision
        return left

    def _decide(self, task: Task, said: Mapping[str, Said], attempt: int, left: Sequence[str]) -> Decision:
        """What follows from what was said of a part. `left`: who is tried before anybody is tried again."""
        return replace(self._steps.decide(task.record, said, attempt), goes_on=bool(left))

    async def _leave(self, task: Task, waiting: list[str], turns: "_Turns", *, tried: bool) -> None:
        """Who waits comes back at once, or when somebody has a turn; in between the request is out of hand."""
        task.record = await self._settler.kept(task.record, task.bundle)
        trying = waiting if len(waiting) < len(task.record.pending) else []
        at = self._clock.now() + timedelta(seconds=turns.promised_s(waiting))

        async def leave() -> None:
            record = changed(task.record, trying=trying, overfull=task.record.overfull + tried)
            await self._settler.again(task.key, task.job, record, task.revision, at, turn=True)

        await self._past_reports(task, leave)

    async def _past_reports(self, task: Task, write: Callable[[], Awaitable[None]]) -> None:
        """Write a record: again where a mail came back between two parts (returned.py). Raises Conflict."""
        for _ in range(REPORTS_TOGETHER):
            try:
                await write()
            except Conflict:
                record, revision = await self._sends.get(task.key)
                waits = record is not None and record.phase in (Phase.WAITING, Phase.HELD)
                if record is None or not waits or record.owner != task.record.owner:
                    raise
                task.record = changed(task.record, returned=record.returned, claimed=record.claimed)
                task.revision = revision
            else:
                return
        raise Conflict("the request is reported on all the time", where="mail-sends")

    async def _ask_for_each(self, task: Task, mails: Sequence["_Mailing"], place: Place) -> dict[str, Said]:
        """What was said of each; without those who were not asked yet when the account's work ended, or it expired."""
        if not mails:
            return {}
        # Before any place, and whoever has his domain's turn first: tasks begin in this order, and the semaphore lets
        # them in as they come. So nobody waits here with a turn behind somebody who waits for another one: a mailing to
        # the same two domains may have that and wait for his.
        mails = sorted(mails, key=lambda one: isinstance(one.turn, float))
        room = asyncio.Semaphore(mails_at_once(task.size, split=True))

        async def ask_for(mailing: _Mailing) -> Said:
            async with room:
                try:
                    return await self._ask_for(task, mailing)
                except TurnedAway as exc:
                    # As if he was not asked yet.
                    raise asyncio.CancelledError from exc

        try:
            async with TaskGroup() as group:
                asking = [group.create_task(ask_for(one), name="mail") for one in mails]
                under_way = list(zip(mails, asking, strict=True))
                hurry = group.create_task(_hurry(place, under_way, self._left_s(task)), name="hurry")
                await asyncio.wait(asking)
                hurry.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        said: dict[str, Said] = {}
        for one, asked in zip(mails, asking, strict=True):
            if not asked.cancelled():
                said[one.recipient.email] = asked.result()
            elif one.dot:
                said[one.recipient.email] = Said(Verdict.UNKNOWN, "")
        return said

    def _left_s(self, task: Task) -> float:
        """Until it expires."""
        return (task.record.expires_at - self._clock.now()).total_seconds()

    async def _ask_for(self, task: Task, mailing: "_Mailing") -> Said:
        one, place = mailing.recipient, mailing.place

        async def dot(_relay: str, _refused: Mapping[str, Reply]) -> None:
            # The intent stands already.
            mailing.dot = True

        try:
            mailing.turn = await self._lanes.wait([one.email], mailing.turn)
            await place.turn()
            await place.take()
            began = self._clock.monotonic()
            own = own_message_id(task.record.message_id, one.email, await self._sends.secret())
            seed = f"{task.key}{mark_of(one.email)}"
            try:
                mail = await self._steps.mail(task, for_one(task.request, one), [one.email], own, seed=seed)
            except RequestProblems as exc:
                # RFC 3463 3.2: a bad address is its recipient's affair alone.
                return Said(Verdict.REFUSED, f"553 5.1.3 not sent by mailbus: {exc.problems[0].message}")
            place.spend_turn()
            said = await self._relays.ask(mail, dot, place.booking)
            self._lanes.heard(said)
            metrics.SEND_SECONDS.observe(self._clock.monotonic() - began)
            return said[one.email]
        except TurnedAway:
            place.keep_turn()
            raise
        finally:
            self._give_back(mailing)
            place.leave()

    def _give_back(self, mailing: "_Mailing") -> None:
        """Its domain's turn, and its account's unless it went to the relay."""
        if mailing.barred is None:
            mailing.place.give_turn_back()
        if isinstance(mailing.turn, Turn):
            self._lanes.give_back(mailing.turn, spent=mailing.place.spent)
            mailing.turn = 0.0


@dataclass(slots=True)
class _Mailing:
    """One recipient's mail. `turn`: his domain's, or the seconds until it comes; `barred`: he gets none, and why.

    `dot`: it may be out.
    """

    recipient: Recipient
    place: Place
    turn: Turn | float = 0.0
    barred: Said | None = None
    dot: bool = False


class _Turns:
    """While a request is in hand: which domains have a turn, and when the others will have one."""

    def __init__(self, lanes: Lanes, clock: Clock, *, waited: bool) -> None:
        self._lanes = lanes
        self._clock = clock
        self._waited = waited
        self._later: dict[str, float] = {}

    def may_be_near(self, who: str) -> bool:
        """Whether his domain's turn is not known to come later."""
        return self._later.get(domain_of(who), float("-inf")) <= self._clock.monotonic()

    def take(self, who: str) -> Turn | float | None:
        """His turn, or how soon it comes; None: later."""
        domain = domain_of(who)
        if not self.may_be_near(who):
            return None
        # A turn that is later is promised once it is known for which one the request comes back. Who is called once
        # there is room needs no promise: it would keep those who come next from turns that he did not wait for.
        within_s = 0.0 if self._lanes.is_near([who], waited=False) else NEAR_S
        turn = self._lanes.take([who], waited=self._waited or domain in self._later, within_s=within_s)
        if isinstance(turn, float) and turn > NEAR_S:
            self._later[domain] = self._clock.monotonic() + turn
            return None
        return turn

    def wait_s(self, waiting: Iterable[str]) -> float:
        """How long until one of them has a turn, as far as that is known; 0: now."""
        now = self._clock.monotonic()
        return max(0.0, min(self._later.get(domain_of(who), now) - now for who in waiting))

    def promised_s(self, waiting: Sequence[str]) -> float:
        """The same; the request comes back for that turn, which is promised."""
        if not self.wait_s(waiting):
            return 0.0
        first = min(waiting, key=lambda who: self._later[domain_of(who)])
        return self._lanes.ask([first], waited=self._waited)


async def _hurry(place: Place, mails: Sequence[tuple[_Mailing, asyncio.Task[Said]]], left_s: float) -> None:
    """Once the account's work ends, or the request expires: who waits for a turn goes without.

    Mails under way are not waited for long where the work ends.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(left_s):
            await place.wait_ending()
    for one, asking in mails:
        if not one.place.taken:
            asking.cancel()
    await place.wait_ending()
    await asyncio.sleep(ENDING_S)
    for _, asking in mails:
        asking.cancel()
