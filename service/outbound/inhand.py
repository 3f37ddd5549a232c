"""Whose request is in hand, and who asks for the same id meanwhile: answered once it is out of hand.

Used by deliver.py. Given back to the queue a repeat would come again and again, one in five seconds would be answered,
and all of them would take the room of other requests among those that NATS hands out at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from service.bus import Job
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, source_of
from service.outbound.settle import Settler

# How long until a job is looked at again that is in hand itself, or whose request others have.
AGAIN_S: Final = 5.0
# Of one request: who asks for it again before anything was said of it, 32 bytes each, and later.
EARLY_LIMIT: Final = 1_000
LATE_LIMIT: Final = 8


@dataclass(slots=True)
class Asked:
    """A request in hand: the message that it came in, and who asks for it again.

    `early`: sequences of those that are acknowledged: nothing was said of the request before they asked, and so
    whatever is said of it answers them, too, also where this process ends. `late`: the others, until they are answered.
    """

    source: str
    early: list[int] = field(default_factory=list)
    late: list[Job] = field(default_factory=list)


class InHand:
    """Requests of one account that are in hand."""

    def __init__(self, sends: Sends, settler: Settler) -> None:
        self._sends = sends
        self._settler = settler
        self._asked: dict[str, Asked] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._asked

    @contextmanager
    def having(self, key: str, job: Job) -> Iterator[Asked]:
        """It is in hand for the length of the block."""
        self._asked[key] = asked = Asked(source_of(job))
        try:
            yield asked
        finally:
            del self._asked[key]

    async def again(self, key: str, job: Job, *, due: bool) -> None:
        """It was delivered again, or its id is asked for once more. `due`: by mailbus itself. Raises Transient."""
        asked = self._asked[key]
        # What was delivered before another process may have begun with, and whoever finds out what became of that needs
        # it. That, or what is in hand itself, may come as if for the first time: NATS forgets deliveries when it is
        # killed.
        if not due and job.delivered == 1 and asked.source != source_of(job):
            record, _ = await self._sends.get(key)
            begun = record is not None and record.source == source_of(job)
            if not begun and self._asked.get(key) is asked and await self._takes(asked, record, job):
                return
        await job.give_back(AGAIN_S)

    async def _takes(self, asked: Asked, record: SendRecord | None, job: Job) -> bool:
        if _is_untold(record) and len(asked.early) < EARLY_LIMIT:
            asked.early.append(job.seq)
            await job.done()
            return True
        if not _is_untold(record) and len(asked.late) < LATE_LIMIT:
            asked.late.append(job)
            return True
        return False

    async def answer(self, key: str, asked: Asked) -> None:
        """Say once more for each what is stored of it, now that it is out of hand. Raises Transient."""
        if not asked.early and not asked.late:
            return
        record, _ = await self._sends.get(key)
        if record is not None:
            for seq in asked.early:
                await self._settler.say(record, asked_again=seq)
        for job in asked.late:
            if record is None:
                await job.give_back()
                continue
            await self._settler.say(record, asked_again=job.seq)
            await job.done()


def _is_untold(record: SendRecord | None) -> bool:
    """Whether nothing was said of a request that is in hand."""
    if record is None:
        return True
    return record.phase is Phase.INTENT and record.attempt <= 1 and not record.split and not record.statuses
