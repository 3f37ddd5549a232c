"""What an epoch recognises by beyond the one before it: kept until it is through, and named by what was announced."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from nats.js.errors import NotFoundError

from service.bus import Bus, OutMessage
from service.clock import SystemClock
from service.contract import CURSOR_HEADER, Reset, ResetReason, email_id
from service.errors import Permanent
from service.ingest import (
    Alone,
    AnnounceOptions,
    Announcer,
    Copies,
    Cursor,
    Epoch,
    Lineage,
    Memory,
    Position,
    Recalled,
    Source,
    Why,
)
from service.ingest.announce import After
from service.ingest.cursor import Before, Named, before_of, load_cursor
from service.ingest.epochs import Epochs
from service.ingest.known import Known
from service.ingest.marks import Recogniser, packed_mark
from service.ingest.notes import Line
from service.ingest.plan import mark_of
from service.ingest.surveyed import Surveyed
from service.parsing import Raw
from tests.ingest.harness import Box, following
from tests.ingest.parts import parts_of
from tests.ingest.test_memory import Kept
from tests.ingest.view import mail, watching
from tests.servers.clock import FakeClock
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
ROW = Surveyed(4, 100, frozenset(), CREATED)


class Settling(Alone):
    """What is settled, and whether it stays for others."""

    def __init__(self, *, stays: bool) -> None:
        self.ids: list[str] = []
        self._stays = stays

    async def settled(self, snapshot: str) -> bool:
        self.ids.append(snapshot)
        return self._stays


def recogniser(*, whole: bool = True) -> Recogniser:
    known = Known()
    known.put(3, frozenset())
    return Recogniser(known, packed_mark(mark_of(ROW)), b"", whole=whole)


def epochs(
    kinship: Alone,
    alarms: list[str],
    *,
    whole: bool = True,
    recalled: Recalled = Recalled.WHOLE,
    passed: Callable[[str], None] = lambda _: None,
) -> Epochs:
    async def begin(_event: object, cursor: Cursor) -> Cursor:
        return cursor

    async def recall(*_: object) -> Recalled:
        return recalled

    async def save(cursor: Cursor) -> Cursor:
        return cursor

    async def found(_: Before) -> Recogniser:
        return recogniser(whole=whole)

    async def highest() -> int:
        return 4

    async def nothing(*_: object) -> None:
        return None

    memory = SimpleNamespace(begin=begin, recall=recall, save=save, recogniser=found, passed_by=passed)
    return Epochs(
        cast(Source, SimpleNamespace(id="new", highest=highest, since=nothing)),
        cast(Memory, memory),
        cast(Announcer, SimpleNamespace(reset=lambda *_: None)),
        initial="all",
        account="box",
        mailbox="New",
        writer="one/1",
        degraded=lambda error: alarms.append(error.what),
        clock=FakeClock(),
        kinship=kinship,
    )


def going_on(before: Before, *, events: int = 5) -> Position:
    cursor = Cursor("new", 8, 0, 0, "one/1", events=events, before=before, state=Named(9, events, "own"))
    return Position(Why.TAIL, 9, cursor, seq=9)


async def test_the_id_of_before_is_of_the_epoch_in_which_the_mail_was_announced() -> None:
    before = Before("", 7, 1, 9, turn=2, beyond=Before("first", 6, 1, 0, mailbox="Old", turn=1))
    made = epochs(Alone(), [])
    begun = await made.begin(going_on(before), Epoch(8, 5, 1))
    (row,) = made.choose([ROW], begun.cursor)
    assert row.previous_id == email_id("Old", 6, 3, 1)


@pytest.mark.parametrize("whole", [True, False])
async def test_it_is_said_where_some_of_what_it_recognises_by_is_lost(whole: bool) -> None:
    alarms: list[str] = []
    made = epochs(Alone(), alarms, whole=whole)
    await made.begin(going_on(Before("second", 7, 1, 9, beyond=Before("first", 6, 1, 0))), Epoch(8, 5, 1))
    assert bool(alarms) != whole


async def test_what_was_known_in_an_epoch_in_which_nothing_was_announced_is_not_recognised_by() -> None:
    begun = await epochs(Alone(), []).begin(going_on(Before("first", 7, 1, 9), events=1), Epoch(9, 5, 1))
    assert begun.cursor.needed == ["first"]


@pytest.mark.parametrize(
    ("recalled", "needed", "passed", "settled"),
    [
        (Recalled.WHOLE, ["own", "5", "4", "3", "2"], ["1"], ["0"]),
        (Recalled.PARTIAL, [], ["own", "5", "4", "3", "2", "1"], ["0"]),
    ],
)
async def test_what_an_epoch_recognised_by_goes_where_the_one_after_it_does_not(
    recalled: Recalled, needed: list[str], passed: list[str], settled: list[str]
) -> None:
    before: Before | None = None
    for number in range(6):
        # The first under another name: that is not for this mailbox to delete.
        before = Before(str(number), number, 1, 9, mailbox="" if number else "Old", beyond=before)
    assert before is not None
    settling, gone = Settling(stays=True), list[str]()
    made = epochs(settling, [], recalled=recalled, passed=gone.append)
    begun = await made.begin(going_on(before), Epoch(9, 5, 1))
    assert (begun.cursor.needed, gone, settling.ids) == (needed, passed, settled)


@pytest.mark.fault("A05")
@pytest.mark.parametrize("stays", [True, False])
async def test_what_was_known_goes_with_its_epoch_unless_others_recognise_by_it(bus: Bus, stays: bool) -> None:
    settling = Settling(stays=stays)
    options = AnnounceOptions(1000, bus.max_payload, Raw.PROBLEM, After())
    parts = parts_of(bus, options, account="box", kinship=settling)
    memory = parts.memory
    await parts.events.resume(contest=True)

    def reset(cursor: Cursor) -> OutMessage:
        body = Reset("INBOX", ResetReason.SOURCE, cursor.uidvalidity, None)
        return parts.announcer.reset(body, cursor, Line(None, ()))

    first, second = Cursor("new", 7, 0, 0, "one/1"), Cursor("new", 8, 0, 0, "one/1")
    saved = await memory.save(await memory.begin(reset(first), first))
    assert saved.state is not None
    await memory.begin(reset(second), second)
    await memory.commit([reset(second)], second)
    assert settling.ids == [saved.state.id]
    assert await bus.blobs(bus.subjects.state).exists(saved.state.id) == stays


@pytest.mark.fault("A05")
async def test_what_an_epoch_recognises_by_stays_although_it_could_go_before(bus: Bus) -> None:
    parts = parts_of(bus, AnnounceOptions(1000, bus.max_payload, Raw.PROBLEM, After()), account="box")
    store, memory = bus.blobs(bus.subjects.state), parts.memory
    await parts.events.resume(contest=True)
    needed, other = [await store.put(data, now=CREATED) for data in (b"needed", b"other")]

    async def begin(cursor: Cursor) -> None:
        body = Reset("INBOX", ResetReason.SOURCE, cursor.uidvalidity, None)
        await memory.begin(parts.announcer.reset(body, cursor, Line(None, ())), cursor)

    # The epoch that it left with it is about to be its own again.
    memory.passed_by(needed)
    memory.passed_by(other)
    before = Before("", 7, 1, 9, beyond=Before(needed, 6, 1, 0))
    cursor = Cursor("new", 8, 0, 0, "one/1", before=before)
    await begin(cursor)
    event = parts.announcer.reset(Reset("INBOX", ResetReason.SOURCE, 8, None), cursor, Line(None, ()))
    await memory.commit([event], cursor)
    assert await store.get(needed) == b"needed"
    with pytest.raises(Permanent):
        await store.get(other)


@pytest.mark.fault("A18")
@pytest.mark.parametrize("taken", [True, False])
async def test_what_an_heir_recognises_by_outlives_the_mailbox_that_stayed_and_is_through_with_it(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    imap_stub.messages = {n: mail(n) for n in range(1, 6)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(5)
    imap_stub.uidvalidity = 8
    imap_stub.messages[6] = mail(6)

    async def no_bodies(_connection: Connection, _tag: str, arguments: str) -> bool:
        return "BODY" in arguments

    # Numbered anew, and stopped when it had said so: of the mail nothing was told in this epoch. What was known is
    # kept by nobody: it may have been that of another server.
    imap_stub.hooks["UID FETCH"] = no_bodies
    filter_subject = bus.subjects.mailbox_filter("box", "INBOX")
    async with following(bus, Box(imap_stub.port, initial="new")):
        while (tail := await bus.log.tail(filter_subject)) is None or tail.seq < 7:  # noqa: ASYNC110 only asking tells
            await asyncio.sleep(0.02)
    cursor = load_cursor(tail.headers[CURSOR_HEADER])
    assert cursor is not None
    (snapshot,) = cursor.needed
    del imap_stub.hooks["UID FETCH"]
    # It was about to leave this epoch, too, and was killed; its heir goes on by what it recognised by.
    await lineage.left("INBOX", cursor, tail.seq)
    if taken:
        await lineage.taken("Heir", before_of(cursor, mailbox="INBOX"))
    box = Box(imap_stub.port, initial="new", kinship=Kept(lineage))
    async with following(bus, box):
        await reader.wait_received(6)
        await imap_stub.deliver(7, mail(7))
        await reader.wait_received(7)
        await watching(box)
    store = await bus.nc.jetstream().object_store(bus.subjects.state)
    try:
        there = {info.name for info in await store.list()}
    except NotFoundError:
        there = set()
    assert (snapshot in there) == taken
    # Whoever is the last to need it says so, and it goes with the next epoch that is left.
    await lineage.taken("Heir", Before("", 9, 1, 0))
    assert await lineage.settled("Heir", snapshot) == taken
    assert await lineage.left("Other", Cursor("source", 9, 1, 0, "one/1"), 99) == [snapshot] * taken
