"""A mailbox that is followed and whose account has a rule, in one process, on a real NATS; ended where a test says."""

import asyncio
import re
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from service.after import AfterOptions, AfterWork, ImapHands, RefusedPace
from service.after.plan import Record, load_record
from service.bus import Bus, OutMessage
from service.clock import SystemClock
from service.contract import (
    AFTER_HEADER,
    STATE_HEADER,
    AccountState,
    After,
    AfterKind,
    EventType,
    email_id,
    fingerprint,
    mailbox_id,
)
from service.errors import MailbusError, Transient
from service.fleet import supervise
from service.imap import Pool, WritingSession
from tests.ingest.harness import QUICK, Box, following, session_options
from tests.servers.dovecot import Dovecot

SEEN = After(AfterKind.SEEN)
DELETE = After(AfterKind.DELETE)
MOVE = After(AfterKind.MOVE, "Done")
# Refused messages come again at once.
AT_ONCE = RefusedPace(first_s=0.01, factor=1.0, max_s=0.01, tries=3)


@dataclass
class Desk:
    """What an account's rule said of itself."""

    box: Box
    work: AfterWork
    said: list[MailbusError] = field(default_factory=list)
    failed: list[MailbusError] = field(default_factory=list)
    proofs: int = 0


NO_MARKS: Final[Mapping[int, str]] = {}


@asynccontextmanager
async def working(
    bus: Bus, box: Box, *, delay_s: float = 0.0, pace: RefusedPace = AT_ONCE, alive: Container[str] = ()
) -> AsyncIterator[Desk]:
    """The rule `box.after` is carried out for the length of the block; nothing is followed."""
    clock = SystemClock()
    pool = Pool(lambda: WritingSession.open(session_options(box), clock=clock), clock, where=box.account)
    said: list[MailbusError] = []
    failed: list[MailbusError] = []

    async def is_alive(writer: str) -> bool:
        return writer in alive

    work = AfterWork(
        ImapHands(
            pool,
            box.after,
            account=box.account,
            degraded=said.append,
            uid_of=lambda _, uidvalidity, number: box.desk.uid_of(uidvalidity, number),
        ),
        bus.log,
        bus.key_value(bus.subjects.after),
        bus.subjects,
        AfterOptions(
            box.account,
            box.writer,
            box.after,
            delay_s,
            pace,
            others_s=0.05,
            round_every_s=0.01,
            retry_first_s=0.01,
            permanent_s=0.05,
        ),
        is_alive=is_alive,
        degraded=said.append,
        failing=failed.append,
        clock=clock,
    )

    desk = Desk(box, work, said, failed)

    async def life(proved: Any) -> None:
        def works() -> None:
            desk.proofs += 1
            proved()

        work.begin(box.mailbox)
        await work.run(works)

    def report(state: AccountState, error: MailbusError | None) -> None:
        if not isinstance(error, Transient):
            pytest.fail(f"{state}: {error!r}")

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervise(life, report=report, pace=QUICK, clock=clock, where="after"))
            try:
                yield desk
            finally:
                task.cancel()
    finally:
        pool.abort()


@asynccontextmanager
async def doing(bus: Bus, box: Box, **options: Any) -> AsyncIterator[Desk]:
    """The mailbox is followed and its rule carried out."""
    async with working(bus, box, **options) as desk:
        box.work = desk.work
        async with following(bus, box):
            yield desk
        box.work = None


def uidvalidity(server: Dovecot, user: str) -> int:
    with server.client(user) as client:
        _, answer = client.status("INBOX", "(UIDVALIDITY)")
    found = re.search(rb"UIDVALIDITY (\d+)", answer[0])
    assert found is not None
    return int(found[1])


async def announce(
    bus: Bus, box: Box, epoch: int, uids: list[int], *, fence: int = 0, marks: Mapping[int, str] = NO_MARKS
) -> int:
    """Events as ingest writes them; gives the last one's place in the log. `marks`: of messages, by UID."""
    subject = bus.subjects.event(box.account, box.mailbox, EventType.RECEIVED)
    events = [
        OutMessage(
            subject,
            b"{}",
            {
                "ce-id": f"{box.user}-{uid}",
                "ce-subject": email_id(box.mailbox, epoch, uid),
                AFTER_HEADER: box.after.mark,
                STATE_HEADER: f"{uid} {marks.get(uid, '-')}",
            },
        )
        for uid in uids
    ]
    return await bus.log.commit(
        events, filter_subject=bus.subjects.mailbox_filter(box.account, box.mailbox), fence=fence
    )


async def fingerprints(box: Box, uids: list[int]) -> dict[int, str]:
    """Of the mailbox's messages, as ingest has them."""
    session = await WritingSession.open(session_options(box), clock=SystemClock())
    await session.open_mailbox(box.mailbox, writing=False)
    rows = await session.survey_these(uids)
    session.abort()
    return {row.uid: fingerprint(row.size, row.internal_date) for row in rows}


async def begin_epoch(bus: Bus, box: Box, *, fence: int) -> int:
    """A `reset`, as ingest writes it; gives its place in the log."""
    event = OutMessage(
        bus.subjects.event(box.account, box.mailbox, EventType.RESET), b"{}", {"ce-id": f"{box.user}-reset-{fence}"}
    )
    return await bus.log.commit(
        [event], filter_subject=bus.subjects.mailbox_filter(box.account, box.mailbox), fence=fence
    )


async def record(bus: Bus, box: Box) -> Record | None:
    """What is remembered of the mailbox."""
    entry = await bus.key_value(bus.subjects.after).get(f"{box.account}.{mailbox_id(box.mailbox)}")
    return load_record(entry.value) if entry is not None else None


def make(server: Dovecot, user: str, mailbox: str) -> None:
    with server.client(user) as client:
        status, answer = client.create(mailbox)
        assert status == "OK", answer


def look(server: Dovecot, user: str, mailbox: str = "INBOX") -> list[tuple[str, set[str]]]:
    """Subject and flags of a mailbox's messages, by UID, without changing them."""
    found: list[tuple[str, set[str]]] = []
    with server.client(user) as client:
        status, answer = client.select(mailbox, readonly=True)
        assert status == "OK", answer
        status, rows = client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        assert status == "OK", rows
        for row in rows:
            if isinstance(row, tuple):
                flags = row[0].partition(b"FLAGS (")[2].partition(b")")[0].decode().split()
                found.append((row[1].decode().partition(":")[2].strip(), set(flags) - {"\\Recent"}))
    return found


async def subjects(server: Dovecot, user: str, mailbox: str = "INBOX") -> list[str]:
    return [subject for subject, _ in await asyncio.to_thread(look, server, user, mailbox)]


async def wait_subjects(server: Dovecot, user: str, expected: list[str], mailbox: str = "INBOX") -> None:
    """Until the mailbox holds these."""
    deadline = asyncio.get_running_loop().time() + 20
    while (found := await subjects(server, user, mailbox)) != expected:
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"{found} is not {expected}")
        await asyncio.sleep(0.02)


async def wait_done(bus: Bus, box: Box, seq: int) -> Record:
    """Until the record says that the log is dealt with up to `seq`."""
    deadline = asyncio.get_running_loop().time() + 20
    while (found := await record(bus, box)) is None or found.seq < seq or found.copying is not None or found.left:
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"{found} has not reached {seq}")
        await asyncio.sleep(0.01)
    return found
