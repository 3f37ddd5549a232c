"""What a person or a consumer decides of a request that was not sent yet: list what is held, cancel, release.

Used by commands, on any replica: `mail-sends` and its compare-and-set decide between it and the sender. Whoever writes
first wins: an intent before the dot means sent, a cancellation before the intent means never sent.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal

from service.bus import Bus, Conflict
from service.clock import Clock
from service.contract import HeldAnswer, HeldRequest, State, request_key
from service.errors import Transient
from service.observe import log, metrics
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, new_owner
from service.outbound.settle import Settler, changed
from service.outbound.status import cancellation

# Another writes the same record at the same moment: it moves on with every write, so a few looks are enough.
TRIES: Final = 5
# All that waits is read, so many at once, to find what is held: whoever asks waits no longer than this.
READ_AT_ONCE: Final = 512
LOOK_S: Final = 10.0
SHOWN_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Undone:
    """How a request stands now (RFC 8621 section 7). `cancelled`: the recipients that will not get it by this."""

    undo_status: Literal["pending", "final", "canceled"]
    cancelled: list[str] = field(default_factory=list)


class Waiting:
    """One account's requests between their publication and their end."""

    def __init__(self, bus: Bus, account: str, sends: Sends, settler: Settler, clock: Clock) -> None:
        self._bus = bus
        self._account = account
        self._sends = sends
        self._settler = settler
        self._clock = clock

    def forget(self) -> None:
        """The account is another process's: what waits is for that one to count."""
        self._settler.uncount()

    async def held(self, *, after: str = "") -> HeldAnswer:
        """Requests with recipients on hold, as far as they are found in LOOK_S, and about SHOWN_LIMIT of them.

        `after`: what another answer has as `next`. Raises Transient.
        """
        found: dict[str, HeldRequest] = {}
        until, last = self._clock.monotonic() + LOOK_S, after
        subjects = self._bus.subjects
        # In the order of their names, so that each look goes on where the one before ended, whatever came and went.
        pages = self._bus.queue(subjects.stream_later).subjects(subjects.later(self._account, "*"))
        async with aclosing(pages):
            async for page in pages:
                keys = [key for subject in page if (key := subject.rpartition(".")[2]) > after]
                for start in range(0, len(keys), READ_AT_ONCE):
                    if last > after and (self._clock.monotonic() > until or len(found) >= SHOWN_LIMIT):
                        return HeldAnswer(list(found.values()), more=True, next=last)
                    some = keys[start : start + READ_AT_ONCE]
                    found |= {one.id: one for one in await self._held_of(some)}
                    last = max(last, some[-1])
        return HeldAnswer(list(found.values()))

    async def _held_of(self, keys: Sequence[str]) -> list[HeldRequest]:
        """Those of some requests."""
        records = await self._sends.get_all(keys)
        return [
            HeldRequest(
                id=record.id,
                message_id="" if record.split else record.message_id,
                attempt=record.attempt,
                recipients=record.held,
                expires_at=record.expires_at,
            )
            for record in records.values()
            if record.held and record.phase in (Phase.WAITING, Phase.HELD)
        ]

    async def cancel(self, id: str) -> Undone | None:
        """Nobody gets it any more who has not got it yet; None where there is no such request. Raises Transient."""
        key = request_key(self._account, id)
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None:
                if not await self._queued():
                    return None
                # It may lie in the queue: whoever takes it finds this, and says it of its recipients, whom nobody knows
                # here; so does the same id when it comes later.
                record = self._unseen(id)
            elif record.phase is Phase.INTENT:
                if not record.split or not record.others:
                    return Undone("pending")
                try:
                    return await self._stop(key, record, revision)
                except Conflict:
                    continue
            elif record.phase is Phase.FINAL:
                await self._finish(key, record)
                return _undone(record)
            await self._settler.say(record)  # whoever stored it may have died before he said it
            waiting = record.waiting
            statuses = [cancellation(record, key=key, now=self._clock.now())] if revision else []
            ended = changed(
                record,
                owner=new_owner(),
                phase=Phase.FINAL,
                pending={},
                held=[],
                next_at=None,
                statuses=statuses,
                cancelled=[*record.cancelled, *waiting],
            )
            try:
                await self._sends.put(key, ended, revision)
            except Conflict:
                continue
            metrics.RECIPIENTS.labels(outcome=State.CANCELLED).inc(len(waiting))
            log.info("send_cancelled", account=self._account, key=key, attempt=record.attempt)
            await self._finish(key, ended)
            return _undone(ended)
        raise Transient("the request is being worked on", where=self._account, remedy="ask again")

    async def _stop(self, key: str, record: SendRecord, revision: int) -> Undone:
        """Take out of an attempt whoever is not tried yet. Raises Conflict."""
        out = [*record.others, *record.held]
        status = cancellation(record, key=key, now=self._clock.now())
        rest = changed(
            record,
            pending={who: reply for who, reply in record.pending.items() if who in record.trying},
            held=[],
            statuses=[status],
            cancelled=[*record.cancelled, *out],
        )
        await self._sends.put(key, rest, revision)
        metrics.RECIPIENTS.labels(outcome=State.CANCELLED).inc(len(out))
        log.info("send_cancelled", account=self._account, key=key, attempt=record.attempt)
        await self._settler.say(rest)
        return Undone("pending", out)

    async def release(self, id: str) -> Undone | None:
        """Recipients on hold are tried at once; None where there is no such request.

        Raises Transient, also where some are on hold and others under way: those are one attempt's to write.
        """
        key = request_key(self._account, id)
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None:
                return Undone("pending") if await self._queued() else None
            if record.phase is Phase.INTENT and not record.held:
                return Undone("pending")
            if record.phase is Phase.INTENT:
                raise Transient(
                    "recipients are on hold still, others are under way at this moment",
                    where=self._account,
                    remedy="ask again once that attempt has ended",
                )
            if record.phase is Phase.FINAL:
                return _undone(record)
            if record.held:
                await self._settler.say(record)
                record = changed(
                    record,
                    owner=new_owner(),
                    phase=Phase.WAITING,
                    pending=record.pending | dict.fromkeys(record.held, ""),
                    held=[],
                    trying=[],
                    next_at=self._clock.now(),
                )
                try:
                    await self._sends.put(key, record, revision)
                except Conflict:
                    continue
                log.info("send_released", account=self._account, key=key, attempt=record.attempt)
            # Also where it was released before: whoever did may have died before the schedule was set.
            await self._settler.go_on(key, record)
            return Undone("pending")
        raise Transient("the request is being worked on", where=self._account, remedy="ask again")

    async def _queued(self) -> bool:
        subjects = self._bus.subjects
        queues = (subjects.out(self._account), subjects.out_urgent(self._account))
        return any([await self._bus.pending(subjects.stream_out, queue) for queue in queues])

    def _unseen(self, id: str) -> SendRecord:
        now = self._clock.now()
        return SendRecord(
            id=id,
            source="",
            owner="",
            phase=Phase.WAITING,
            attempt=0,
            message_id="",
            date=now,
            expires_at=now,
        )

    async def _finish(self, key: str, record: SendRecord) -> None:
        """What follows from a cancellation, again where it was broken off."""
        if any(status.state is State.CANCELLED for status in record.statuses):
            await self._settler.say(record)
            # In this order: its time may come once more and find it final, but what it keeps nobody else would free.
            await self._settler.go_on(key, record)
            await self._settler.unschedule(key)


def _undone(record: SendRecord) -> Undone:
    cancelled = record.unseen or any(status.state is State.CANCELLED for status in record.statuses)
    return Undone("canceled" if cancelled and not record.taken else "final", record.cancelled)
