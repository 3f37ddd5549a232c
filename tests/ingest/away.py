"""IMAP's account `box` by POP3, where the two share no number: what is learnt, and the stand-in as in production."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from service.budget import Budget
from service.bus import Bus
from service.clock import SystemClock
from service.contract import AccountState, After
from service.errors import MailbusError
from service.fleet import supervise
from service.ingest import (
    AnnounceOptions,
    Copies,
    Desk,
    IngestOptions,
    Learner,
    Lesson,
    MailboxIngest,
    MailboxStatus,
    Memory,
    PairedStandIn,
    Tries,
)
from service.parsing import Raw
from service.pop3 import Door
from tests.ingest.harness import QUICK, Box, following
from tests.ingest.parts import parts_of
from tests.ingest.view import watching
from tests.pop3.harness import options
from tests.servers.mailbus import until

HOST = "127.0.0.1"


@dataclass
class Away:
    """What the stand-in says of itself."""

    port: int
    user: str = "user"
    after: After = field(default_factory=After)
    message_limit: int = 50 * 1024 * 1024
    states: list[tuple[AccountState, MailbusError | None]] = field(default_factory=list)
    proofs: int = 0
    memory: Memory | None = None
    tries: Tries = field(default_factory=Tries)


def door(away: Away) -> Door:
    given = options(away.port, username=away.user, message_limit=away.message_limit)
    return Door(given, asyncio.Semaphore(1), SystemClock(), locked_s=0.01)


def learner(bus: Bus, away: Away, *, account: str = "box") -> Learner:
    subjects = bus.subjects
    return Learner(
        door(away),
        bus.log,
        bus.blobs(subjects.state),
        bus.key_value(subjects.cursors),
        Copies(bus.key_value(subjects.cursors), SystemClock()),
        account=account,
        mailbox="INBOX",
        filter_subject=subjects.mailbox_filter("box", "INBOX"),
        clock=SystemClock(),
    )


async def by_imap(bus: Bus, imap_port: int, learn_port: int = 0, **more: Any) -> Lesson | None:
    """Until all that IMAP has is told; and what the maildrop shows of it is learnt."""
    async with following(bus, returned(imap_port, **more)) as box:
        await watching(box)
        await box.desk.caught_up()
        if learn_port:
            return await learner(bus, Away(learn_port, box.user)).learn(box.desk.caught_up)
    return None


def returned(imap_port: int, **more: Any) -> Box:
    """INBOX by IMAP, as it is read where POP3 may stand in."""
    return Box(imap_port, prints=True, poll_s=0.05, **more)


async def _follow(bus: Bus, away: Away) -> None:
    clock = SystemClock()
    parts = parts_of(bus, AnnounceOptions(256 * 1024, bus.max_payload, Raw.PROBLEM, away.after), account="box")
    at, away.memory = door(away), parts.memory

    def report(state: AccountState, error: MailbusError | None) -> None:
        away.states.append((state, error))

    def works() -> None:
        away.proofs += 1

    async def life(proved: Any) -> None:
        position = await parts.events.resume(contest=False)
        source = PairedStandIn(
            at,
            parts.memory,
            position,
            away.tries,
            learner(bus, away),
            host=HOST,
            mailbox="INBOX",
            poll_s=0.05,
            clock=clock,
        )
        try:
            await MailboxIngest(
                source,
                parts.events,
                parts.memory,
                parts.announcer,
                options=IngestOptions("all", away.message_limit),
                status=MailboxStatus("INBOX"),
                desk=Desk("INBOX"),
                budget=Budget(64 * 1024 * 1024),
                proved=works,
                degraded=lambda error: report(AccountState.DEGRADED, error),
                clock=clock,
                account="box",
            ).run(position)
        finally:
            source.abort()

    async with asyncio.TaskGroup() as group:
        group.create_task(parts.copies.run())
        await supervise(life, report=report, pace=QUICK, clock=clock, where="box")


@asynccontextmanager
async def standing_in(bus: Bus, port: int, **more: Any) -> AsyncIterator[Away]:
    """POP3 stands in for the length of the block."""
    away = Away(port, **more)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_follow(bus, away))
        try:
            yield away
        finally:
            task.cancel()


async def looked(away: Away) -> None:
    """Until it has looked twice, and told what there was."""
    before = away.proofs
    await until(lambda: away.proofs > before + 1, what=f"{away.states}")
