"""A message that comes again → how often a process ended while it had it in hand. Used by deliver.py.

Whoever begins one that was delivered before leaves a mark in `mail-sends`, and takes it away whatever comes of it: it
stays only where the process ended. That says little of the request: others were in hand beside it, a roll-out ends
processes too. So it goes alone next time (places.py), and is given up only after it went so again and again. Where the
others are let in before it is through, its mark goes: it ended nothing while it was alone.
docs/decisions/0031-who-ends-its-process.md
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from service.bus import Conflict, Job, KeyValue
from service.contract import encode
from service.errors import MailbusError, verdict_of
from service.outbound.sends import source_of
from service.tasks import TaskGroup

# Marks that were left. The first delivery leaves none: it costs nothing, and ends nearly always well.
GIVEN_UP_AT: Final = 4
END_TIMEOUT_S: Final = 2.0


class OvertakenError(Conflict):
    """Another process has the same message in hand, by a delivery of its own."""


class _Mark(msgspec.Struct, frozen=True):
    """`writer`: the process that has the message in hand; `ended`: how many had it when they ended."""

    writer: str
    ended: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What its mark says of a message: how many processes ended with it; `revision`: of the mark, 0 without one."""

    ended: int
    revision: int


_DECODER: Final = msgspec.json.Decoder(_Mark)


class Suspects:
    """Marks of this process, which writes as `writer`. `lives`: whether another process does, by its name."""

    def __init__(self, bucket: KeyValue, *, writer: str, lives: Callable[[str], Awaitable[bool]]) -> None:
        self._bucket = bucket
        self._writer = writer
        self._lives = lives

    async def look(self, job: Job) -> Suspicion:
        """How many processes ended with it in hand. Raises Transient."""
        entry = await self._bucket.get(_name(job))
        if entry is None:
            return Suspicion(0, 0)
        mark = _DECODER.decode(entry.value)
        # One that lives only failed to take its mark away: NATS was gone, or the message went to another meanwhile.
        lives = mark.writer == self._writer or await self._lives(mark.writer)
        return Suspicion(mark.ended if lives else mark.ended + 1, entry.revision)

    @asynccontextmanager
    async def having(self, job: Job, found: Suspicion, over: asyncio.Event | None) -> AsyncIterator[None]:
        """For the length of the block this process has it in hand, until `over` as one that is to blame.

        Raises OvertakenError where another was first, Transient.
        """
        await self.begin(job, found)
        try:
            async with TaskGroup() as group:
                clearing = group.create_task(self._cleared(job, over), name="suspicion") if over is not None else None
                yield
                if clearing is not None:
                    clearing.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        finally:
            await self.end(job)

    async def _cleared(self, job: Job, over: asyncio.Event) -> None:
        await over.wait()
        await self.end(job)

    async def begin(self, job: Job, found: Suspicion) -> None:
        """From now on this process has it in hand. Raises OvertakenError where another was first, Transient.

        Only once it really begins: who merely waits beside one that ends the process is not to blame.
        """
        value = encode(_Mark(self._writer, found.ended))
        try:
            if found.revision:
                await self._bucket.update(_name(job), value, found.revision)
            else:
                await self._bucket.create(_name(job), value)
        except Conflict as exc:
            raise OvertakenError(exc.what, where=exc.where) from exc

    async def end(self, job: Job) -> None:
        """It is out of hand."""
        # A mark of the deletion stays for as long as the request's record; to purge it would take a right of its own.
        with suppress(MailbusError, TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._bucket.delete(_name(job))


def _name(job: Job) -> str:
    """The bucket's key: no record's, which are hexadecimal alone."""
    return f"begun-{hashlib.sha256(source_of(job).encode()).hexdigest()[:32]}"
