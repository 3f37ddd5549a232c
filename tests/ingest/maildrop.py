"""One maildrop, supervised as in production, on a real NATS; small enough to be told what to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from service.after import AfterOptions, AfterWork, Pop3Hands, RefusedPace
from service.budget import Budget
from service.bus import Bus
from service.clock import SystemClock
from service.contract import AccountState, After, AfterKind, Security
from service.errors import MailbusError
from service.fleet import supervise
from service.ingest import (
    AnnounceOptions,
    Desk,
    IngestOptions,
    Lasting,
    MailboxIngest,
    MailboxStatus,
    Memory,
    Pop3Source,
    header_print,
)
from service.parsing import Raw
from service.pop3 import Door, Pop3Options
from tests.ingest.harness import QUICK
from tests.ingest.parts import nobody, parts_of
from tests.servers.imap_server import PASSWORD
from tests.servers.mailbus import Event, until
from tests.servers.pop3_stub import Mail, Pop3Stub

DELETE = After(AfterKind.DELETE)


@dataclass
class Drop:
    """Where a maildrop is and how it is read."""

    port: int
    user: str = "someone"
    account: str = "drop"
    mailbox: str = "INBOX"
    writer: str = "one/1"
    host: str = "127.0.0.1"
    initial: datetime | str = "all"
    message_limit: int = 50 * 1024 * 1024
    inline_limit: int = 256 * 1024
    reply_s: float = 5.0
    poll_s: float = 0.05
    locked_s: float = 0.02
    after: After = field(default_factory=After)
    delay_s: float = 0.0
    status: MailboxStatus = field(default_factory=lambda: MailboxStatus("INBOX"))
    desk: Desk = field(default_factory=lambda: Desk("INBOX"))
    states: list[tuple[AccountState, MailbusError | None]] = field(default_factory=list)
    alarms: list[MailbusError] = field(default_factory=list)
    memory: Memory | None = None
    proofs: int = 0


def pop3_options(drop: Drop) -> Pop3Options:
    return Pop3Options(
        account=drop.account,
        host=drop.host,
        port=drop.port,
        security=Security.NONE,
        tls=None,
        username=drop.user,
        password=PASSWORD,
        message_limit=drop.message_limit,
        reply_s=drop.reply_s,
    )


async def follow_maildrop(bus: Bus, drop: Drop) -> None:
    """Announce the maildrop, and carry its rule out, until cancelled."""
    clock, subjects = SystemClock(), bus.subjects
    lasting = Lasting()
    parts = parts_of(
        bus,
        AnnounceOptions(drop.inline_limit, bus.max_payload, Raw.PROBLEM, drop.after, prints=True),
        account=drop.account,
        mailbox=drop.mailbox,
        writer=drop.writer,
        alarm=drop.alarms.append,
    )
    copies, events, memory = parts.copies, parts.events, parts.memory
    drop.memory = memory
    door = Door(pop3_options(drop), asyncio.Semaphore(5), clock, locked_s=drop.locked_s)
    after = None
    if drop.after.kind is not AfterKind.NOTHING:
        after = AfterWork(
            Pop3Hands(door, bus.log, memory.identities, lasting.deleted, header_print),
            bus.log,
            bus.key_value(subjects.after),
            subjects,
            AfterOptions(
                drop.account,
                drop.writer,
                drop.after,
                drop.delay_s,
                RefusedPace(first_s=0.01, factor=1.0, max_s=0.01, tries=3),
                round_every_s=0.01,
                retry_first_s=0.01,
                others_s=0.05,
            ),
            is_alive=nobody,
            degraded=drop.alarms.append,
            failing=lambda _error: None,
            clock=clock,
        )

    def report(state: AccountState, error: MailbusError | None) -> None:
        drop.states.append((state, error))

    async def life(proved: Any) -> None:
        followed = False

        def works() -> None:
            nonlocal followed
            drop.proofs += 1
            proved()
            if after is not None and not followed:
                followed = True
                after.begin(drop.mailbox)

        position = await events.resume(contest=True)
        source = Pop3Source(
            door,
            memory,
            position,
            mailbox=drop.mailbox,
            poll_s=drop.poll_s,
            lasting=lasting,
            said=drop.status.refused,
            degraded=drop.alarms.append,
            clock=clock,
        )
        try:
            await MailboxIngest(
                source,
                events,
                memory,
                parts.announcer,
                options=IngestOptions(drop.initial, drop.message_limit),
                status=drop.status,
                desk=drop.desk,
                budget=Budget(64 * 1024 * 1024),
                proved=works,
                degraded=drop.alarms.append,
                clock=clock,
                account=drop.account,
                announced=lambda: after.announced(drop.mailbox) if after is not None else None,
            ).run(position)
        finally:
            source.abort()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copies.run())
            if after is not None:
                group.create_task(supervise(after.run, report=report, pace=QUICK, clock=clock, where="after"))
            await supervise(life, report=report, pace=QUICK, clock=clock, where=drop.account)
    finally:
        if bus.connected:
            await copies.flush()


@asynccontextmanager
async def following(bus: Bus, drop: Drop) -> AsyncIterator[Drop]:
    """The maildrop is announced for the length of the block; its end is a clean stop."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow_maildrop(bus, drop))
        try:
            yield drop
        finally:
            task.cancel()


NOW = datetime.now(UTC)
LONG_AGO = datetime(2020, 1, 1, 10, tzinfo=UTC)


def body(number: int, at: datetime | None = NOW) -> bytes:
    received = f"Received: from a by b; {format_datetime(at)}\r\n".encode() if at else b""
    return received + b"Subject: mail %d\r\n\r\n%b\r\n" % (number, b"x" * number)


def mail(number: int, at: datetime | None = NOW) -> Mail:
    return Mail(f"uidl-{number}", body(number, at))


def subjects(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events if event.kind == "received"]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def ids(events: list[Event], kind: str = "received") -> list[str]:
    """Of the mails that events of a kind are about."""
    return [event.body["id"] for event in events if event.kind == kind]


def resets(events: list[Event]) -> list[str]:
    return [event.body["reason"] for event in events if event.kind == "reset"]


async def caught_up(drop: Drop) -> None:
    """Until it has looked, and said what there was to say."""
    before = drop.proofs
    await until(lambda: drop.proofs > before, what=f"{drop.states}")


async def run(bus: Bus, stub: Pop3Stub, **options: Any) -> Drop:
    """Look at the maildrop until all is told."""
    async with following(bus, Drop(stub.port, **options)) as drop:
        await caught_up(drop)
    return drop
