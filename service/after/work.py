"""An account's rule, carried out in its mailboxes: what the log confirms is done, batch by batch, and remembered.

Ingest says when a mailbox is followed (begin) and when something was announced (announced). What is pending is read
from the log each time, by its headers: so nothing is done for an event that NATS may have forgotten since, and a
million of them take no memory. A batch is remembered after it is done; killed in between it is done again, which
finds it done. By whose hands, hands.py and over_pop3.py say; ingest's connections stay read-only.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from service.after.act import Acted, Result
from service.after.hands import Hands
from service.after.kept import Kept
from service.after.plan import LEFT_LIMIT, Item, Left, Record, RefusedPace, item_of, next_left, of_epoch, waits_s
from service.bus import Conflict, EventLog, KeyValue, StreamBounds
from service.clock import Clock, backoff_s
from service.contract import IDS_LIMIT, After, AfterKind, EventType, Subjects, email_id, mailbox_id, mailbox_name
from service.errors import MailbusError, Permanent, Transient
from service.imap import Refused, Unanswered
from service.observe import log, metrics, step

# Of one round: no more is in memory, and other mailboxes and commands have their turn.
BATCH_LIMIT: Final = IDS_LIMIT
SCAN_LIMIT: Final = 20_000
# Mail that comes one by one is dealt with together; each look costs NATS a consumer.
ROUND_EVERY_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
PERMANENT_S: Final = 300.0
# Once is a connection that was lost, or commands that were many: no state of an account.
FAILING_FROM: Final = 2
# Until another process that is at it is looked for again.
OTHERS_S: Final = 20.0
# A connection that is lost each time that one message is in hand: it is that message.
LOST_LIMIT: Final = 3


@dataclass(frozen=True, slots=True)
class AfterOptions:
    """`writer`: this process, as `is_alive` is asked for others; `delay_s`: how long after the event; `pace`: of
    messages that the server refuses."""

    account: str
    writer: str
    after: After
    delay_s: float
    pace: RefusedPace = field(default_factory=RefusedPace)
    round_every_s: float = ROUND_EVERY_S
    retry_first_s: float = RETRY_FIRST_S
    permanent_s: float = PERMANENT_S
    others_s: float = OTHERS_S


@dataclass(slots=True)
class _Mailbox:
    """`look_at`: when there is something to look at; `not_before`: after a failure, or the round before.

    `begun`: its record is to be read anew.
    """

    name: str
    kept: Kept
    look_at: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    size: int = BATCH_LIMIT
    lost: int = 0
    begun: bool = True

    @property
    def at(self) -> float:
        return max(self.look_at, self.not_before)


@dataclass(slots=True)
class _Found:
    """What a look into the log gave. `waits_s`: until the next event is due; `more`: there is more that is due."""

    seq: int
    id: str
    items: list[Item] = field(default_factory=list)
    waits_s: float | None = None
    more: bool = False


class AfterWork:
    """One account's."""

    def __init__(
        self,
        hands: Hands,
        events: EventLog,
        records: KeyValue,
        subjects: Subjects,
        options: AfterOptions,
        *,
        is_alive: Callable[[str], Awaitable[bool]],
        degraded: Callable[[MailbusError], None],
        failing: Callable[[MailbusError], None],
        clock: Clock,
    ) -> None:
        self._hands = hands
        self._events = events
        self._records = records
        self._subjects = subjects
        self._options = options
        self._mark = options.after.mark
        self._is_alive = is_alive
        self._degraded = degraded
        self._failing = failing
        self._clock = clock
        self._mailboxes: dict[str, _Mailbox] = {}
        self._bell = asyncio.Event()

    # -- told by whoever follows the mailboxes ----------------------------------------------------------------

    def begin(self, mailbox: str) -> None:
        """The mailbox is followed, and its epoch begun: its record is read anew."""
        box = self._mailboxes.get(mailbox)
        if box is None:
            box = self._mailboxes[mailbox] = _Mailbox(mailbox, self._kept(mailbox))
        box.begun, box.look_at = True, self._clock.monotonic()
        self._bell.set()

    def _kept(self, mailbox: str) -> Kept:
        options = self._options
        key = f"{options.account}.{mailbox_id(mailbox)}"
        return Kept(self._records, self._events, key, mark=self._mark, writer=options.writer, is_alive=self._is_alive)

    def announced(self, mailbox: str) -> None:
        """Something was committed."""
        box = self._mailboxes.get(mailbox)
        if box is not None:
            box.look_at = min(box.look_at, self._clock.monotonic() + self._options.delay_s)
            self._bell.set()

    def end(self, mailbox: str) -> None:
        """The mailbox is not followed any more, or another writer has it now."""
        self._mailboxes.pop(mailbox, None)

    # -- rounds -----------------------------------------------------------------------------------------------

    async def run(self, proved: Callable[[], None]) -> None:
        """Carry the rule out for ever. A mailbox that fails waits, and holds up no other."""
        await self._warn()
        await self._wait_ready()
        proved()
        while True:
            box = min(self._mailboxes.values(), key=lambda box: box.at, default=None)
            seconds = math.inf if box is None else box.at - self._clock.monotonic()
            if box is None or seconds > 0:
                await self._wait(seconds)
                continue
            await self._round(box)
            if not any(box.failures for box in self._mailboxes.values()):
                proved()

    async def _wait_ready(self) -> None:
        """Say what is missing before the first mail is concerned, and look for it now and then."""
        while True:
            try:
                await self._hands.ready()
            except Permanent as exc:
                self._degraded(exc)
                await self._clock.sleep(self._options.permanent_s)
            else:
                return

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._bell.wait()
        except TimeoutError:
            return
        self._bell.clear()

    async def _warn(self) -> None:
        """A log that may forget what it confirmed, under a rule that destroys."""
        if self._options.after.kind is not AfterKind.DELETE:
            return
        if (await self._events.bounds()).replicas < 2:
            log.warning(
                "after_outlives_log",
                account=self._options.account,
                stream=self._subjects.stream_in,
                remedy="one replica: set sync_interval: always on the NATS server, or nats.replicas: 3",
            )

    async def _round(self, box: _Mailbox) -> None:
        # What is announced from now on is looked at once more.
        box.look_at = math.inf
        pause_s = self._options.round_every_s
        try:
            again_s = await self._look(box)
        except (Conflict, Transient, Permanent) as exc:
            box.failures += 1
            box.begun = True
            again_s, pause_s = 0.0, self._pause_s(box, exc)
            self._failed(box, exc)
        else:
            box.failures = 0
            if again_s == 0.0:
                pause_s = 0.0
        now = self._clock.monotonic()
        box.not_before = now + pause_s
        if again_s is not None:
            box.look_at = min(box.look_at, now + again_s)

    def _pause_s(self, box: _Mailbox, exc: MailbusError) -> float:
        if isinstance(exc, Permanent) and not (isinstance(exc, Refused) and exc.later):
            return self._options.permanent_s
        chance = self._clock.chance()
        return backoff_s(box.failures, first_s=self._options.retry_first_s, factor=2, max_s=RETRY_MAX_S, chance=chance)

    def _failed(self, box: _Mailbox, exc: MailbusError) -> None:
        log.info("after_waits", account=self._options.account, mailbox=box.name, tries=box.failures, error=str(exc))
        if isinstance(exc, Permanent):
            self._degraded(exc)
        elif isinstance(exc, Transient) and box.failures >= FAILING_FROM:
            self._failing(exc)

    async def _look(self, box: _Mailbox) -> float | None:
        """One round of a mailbox; gives the seconds until the next one, None where nothing is pending."""
        bounds = await self._events.bounds()
        if box.begun:
            box.begun = False
            await box.kept.load(bounds)
        if await box.kept.others():
            log.info("after_others", account=self._options.account, mailbox=box.name)
            box.begun = True
            return self._options.others_s
        record = await self._of_epoch(box)
        left = next_left(record.left)
        if left is not None and waits_s(left, self._clock.now()) == 0.0:
            # Alone, so that whatever is wrong with it is its own.
            await self._act(box, [Item(left.uid, left.uidvalidity, left.seq, left.mark)], again=left)
            return 0.0
        found = await self._find(box, record, bounds)
        step("after.read")
        if found.items or record.copying is not None:
            record = await self._act(box, found.items)
        if found.seq > record.seq:
            await box.kept.write(replace(record, seq=found.seq, id=found.id))
            step("after.done")
        if found.more:
            return 0.0
        # What was not due when the round began may be by now.
        pauses = (found.waits_s, waits_s(next_left(record.left), self._clock.now()))
        return min((seconds for seconds in pauses if seconds is not None), default=None)

    async def _of_epoch(self, box: _Mailbox) -> Record:
        """The record, without what was named before the mailbox's last `reset`. Read after the log's bounds were."""
        record = box.kept.record
        reset = await self._events.tail(self._subjects.event(self._options.account, box.name, EventType.RESET))
        # Where the log has forgotten it, it has forgotten all that was before it.
        if reset is not None and reset.seq != record.reset:
            record = of_epoch(record, reset.seq, reset.headers.get("ce-id", ""))
            box.kept.go_on(record)
        return record

    async def _find(self, box: _Mailbox, record: Record, bounds: StreamBounds) -> _Found:
        """The next messages whose events are confirmed, and have been for long enough."""
        found = _Found(record.seq, record.id)
        # Where the rule moves mail into this very mailbox there is nothing to do.
        after = self._options.after
        idle = after.kind is AfterKind.MOVE and mailbox_name(after.mailbox) == mailbox_name(box.name)
        subject = self._subjects.event(self._options.account, box.name, EventType.RECEIVED)
        scanned = 0
        async with aclosing(self._events.replay(subject, after=record.seq, last=bounds.last_seq)) as messages:
            async for message in messages:
                item = item_of(box.name, self._mark, message.headers, message.seq)
                if scanned >= SCAN_LIMIT:
                    found.more = True
                    break
                if item is not None and not idle:
                    waits_s = self._options.delay_s - (bounds.now - message.time).total_seconds()
                    if waits_s > 0:
                        found.waits_s = waits_s
                        break
                    if len(found.items) >= box.size:
                        found.more = True
                        break
                    found.items.append(item)
                scanned += 1
                found.seq, found.id = message.seq, message.headers.get("ce-id", "")
        return found

    # -- acting -----------------------------------------------------------------------------------------------

    async def _act(self, box: _Mailbox, items: Sequence[Item], again: Left | None = None) -> Record:
        """Do it, or note what the server refuses of it; gives the record with what is left."""
        await box.kept.claim()
        try:
            acted, uidvalidity = await self._hands.act(box.name, items, box.kept)
        except Unanswered as exc:
            # The smaller, the sooner it is found whether a single message is why.
            if len(items) == 1 and again is None:
                box.lost += 1
            box.size = max(1, min(box.size, len(items)) // 2)
            if again is None and (len(items) != 1 or box.lost < LOST_LIMIT):
                raise
            refused = Refused(exc.what, where=exc.where, remedy="look at this message, and at the server's log")
            acted, uidvalidity = Acted(refused={items[0].uid: refused}), items[0].uidvalidity
        else:
            box.size = min(BATCH_LIMIT, box.size * 2)
        box.lost = 0
        step("after.acted")
        for result, count in acted.results.items():
            metrics.AFTER.labels(result=result).inc(count)
        return await self._left_of(box, acted, uidvalidity, again, {item.uid: item for item in items})

    async def _left_of(
        self, box: _Mailbox, acted: Acted, uidvalidity: int, again: Left | None, items: Mapping[int, Item]
    ) -> Record:
        """The record with those that the server refused; those that were refused too often are said, and passed."""
        record = box.kept.record
        kept = [one for one in record.left if one is not again]
        if again is not None or acted.refused:
            now = self._clock.now()
            tries = 1 + (again.tries if again is not None else 0)
            for uid, refused in sorted(acted.refused.items()):
                metrics.AFTER.labels(result=Result.REFUSED).inc()
                item = items.get(uid) or Item(uid, uidvalidity, 0)
                if (one := self._options.pace.next(item, tries, now)) is not None:
                    kept.append(one)
                else:
                    self._give_up(box, uid, uidvalidity, refused)
            if len(kept) > LEFT_LIMIT:
                said = next(iter(acted.refused.values()))
                raise Permanent(
                    f"over {LEFT_LIMIT} messages are refused: {said.what}", where=said.where, remedy=said.remedy
                )
            record = replace(record, left=kept)
            await box.kept.write(record)
        for uid, refused in acted.stuck.items():
            self._give_up(box, uid, uidvalidity, refused)
        return record

    def _give_up(self, box: _Mailbox, uid: int, uidvalidity: int, refused: Permanent) -> None:
        metrics.AFTER.labels(result=Result.GIVEN_UP).inc()
        id = email_id(box.name, uidvalidity, uid)
        log.error("after_given_up", account=self._options.account, mailbox=box.name, id=id, error=str(refused))
        self._degraded(
            Permanent(
                f"`after: {self._options.after.kind}` is not done to {id}: {refused.what}",
                where=f"{self._options.account}, {box.name}",
                remedy="do it by hand; mailbus does not try again",
            )
        )
