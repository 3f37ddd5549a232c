"""A part of a mailbox's log → what its events say of the known state, in their places those that were erased.

Used by memory.py and learnt.py.
"""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from service.bus import EventLog
from service.contract import STATE_HEADER
from service.ingest.erased import Erased


async def told(
    log: EventLog, erased: Sequence[Erased], filter_subject: str, *, after: int, last: int
) -> AsyncGenerator[Erased, None]:
    """The events beyond `after` and up to `last`. `erased`: all that were, in their order. Raises Transient."""
    gone = deque(one for one in erased if after < one.seq <= last)
    async with aclosing(log.replay(filter_subject, after=after, last=last)) as messages:
        async for message in messages:
            while gone and gone[0].seq <= message.seq:
                # One that is there after all: whoever erased was killed before it went.
                if (one := gone.popleft()).seq < message.seq:
                    yield one
            headers = message.headers
            kind = message.subject.rpartition(".")[2]
            yield Erased(message.seq, kind, headers.get("ce-id", ""), headers.get(STATE_HEADER, ""))
    for one in gone:
        yield one
