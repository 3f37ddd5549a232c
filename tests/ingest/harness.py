"""One mailbox of one server, supervised as in production, on a real NATS; small enough to be told what to do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.after import AfterWork
from service.boxes import Lines
from service.budget import Budget
from service.bus import Bus
from service.clock import SystemClock
from service.contract import AccountState, After, Security
from service.errors import MailbusError, Superseded
from service.fleet import Pace, supervise
from service.imap import Session, SessionOptions
from service.ingest import (
    ALONE,
    Allowance,
    AnnounceOptions,
    Copies,
    Desk,
    ImapSource,
    IngestOptions,
    Kinship,
    MailboxIngest,
    MailboxStatus,
)
from service.parsing import Raw
from service.tasks import TaskGroup
from tests.ingest.parts import parts_of
from tests.servers.imap_server import PASSWORD

QUICK = Pace(first_s=0.01, factor=1.5, max_s=0.2, auth_s=0.2, permanent_s=0.2, superseded_s=0.3, bug_s=0.2)


@dataclass
class Box:
    """Where a mailbox is and how it is read."""

    port: int
    user: str = "user"
    host: str = "127.0.0.1"
    mailbox: str = "INBOX"
    account: str = "box"
    writer: str = "one/1"
    initial: datetime | str = "all"
    message_limit: int = 50 * 1024 * 1024
    inline_limit: int = 256 * 1024
    reply_s: float = 5.0
    connect_s: float = 10.0
    idle_s: float = 30.0
    poll_s: float = 0.1
    raw: Raw = Raw.PROBLEM
    prints: bool = False
    first: tuple[str, ...] = ()
    listed: bool = False
    allowance: Allowance | None = None
    alive: frozenset[str] = frozenset()
    status: MailboxStatus = field(default_factory=lambda: MailboxStatus("INBOX"))
    states: list[tuple[AccountState, MailbusError | None]] = field(default_factory=list)
    alarms: list[MailbusError] = field(default_factory=list)
    copies: Copies | None = None
    after: After = field(default_factory=After)
    work: AfterWork | None = None
    desk: Desk = field(default_factory=lambda: Desk("INBOX"))
    returned: Callable[[bytes], Awaitable[None]] | None = None
    kinship: Kinship = ALONE


def session_options(box: Box) -> SessionOptions:
    return SessionOptions(
        account=box.account,
        host=box.host,
        port=box.port,
        security=Security.NONE,
        tls=None,
        username=box.user,
        password=PASSWORD,
        message_limit=box.message_limit,
        reply_s=box.reply_s,
        connect_s=box.connect_s,
    )


async def follow_mailbox(bus: Bus, box: Box) -> None:
    """Announce the mailbox until cancelled."""
    clock = SystemClock()
    box.status.name = box.desk.mailbox = box.mailbox

    async def is_alive(writer: str) -> bool:
        return writer in box.alive

    parts = parts_of(
        bus,
        AnnounceOptions(box.inline_limit, bus.max_payload, box.raw, box.after, prints=box.prints),
        account=box.account,
        mailbox=box.mailbox,
        writer=box.writer,
        is_alive=is_alive,
        alarm=box.alarms.append,
        returned=box.returned,
        kinship=box.kinship,
    )
    box.copies, events = parts.copies, parts.events
    box.desk.numbers = parts.memory
    budget = Budget(64 * 1024 * 1024)
    contest = True

    lines = Lines(lambda: Session.open(session_options(box), clock=clock), limit=1, pause_s=lambda *_: 0.0, clock=clock)

    async def life(proved: Any) -> None:
        nonlocal contest
        try:
            position = await events.resume(contest=contest)
            contest = True
            if box.work is not None:
                box.work.begin(box.mailbox)
            source = ImapSource(
                lines.place(0),
                host=box.host,
                username=box.user,
                mailbox=box.mailbox,
                idle_s=box.idle_s,
                poll_s=box.poll_s,
                clock=clock,
                first=lambda: box.first,
                allowance=box.allowance,
                listed=lambda: box.listed,
            )
            try:
                await MailboxIngest(
                    source,
                    events,
                    parts.memory,
                    parts.announcer,
                    options=IngestOptions(box.initial, box.message_limit),
                    status=box.status,
                    desk=box.desk,
                    budget=budget,
                    proved=proved,
                    degraded=lambda error: report(AccountState.DEGRADED, error),
                    clock=clock,
                    account=box.account,
                    announced=lambda: box.work.announced(box.mailbox) if box.work is not None else None,
                    kinship=box.kinship,
                ).run(position)
            finally:
                await source.close()
        except Superseded:
            contest = False
            raise

    def report(state: AccountState, error: MailbusError | None) -> None:
        box.states.append((state, error))

    async with TaskGroup() as group:
        group.create_task(box.copies.run(), name="copies")
        await supervise(life, report=report, pace=QUICK, clock=clock, where=f"{box.account}, {box.mailbox}")


@asynccontextmanager
async def following(bus: Bus, box: Box) -> AsyncIterator[Box]:
    """The mailbox is announced for the length of the block; its end is a clean stop."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow_mailbox(bus, box))
        try:
            yield box
        finally:
            task.cancel()
    if box.copies is not None and bus.connected:
        await box.copies.flush()
