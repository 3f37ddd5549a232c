"""Somebody else publishes on a mailbox's subjects: the mailbox goes on from its own last event, and says so once."""

import pytest

from service.bus import Bus
from service.contract import CURSOR_HEADER
from service.errors import Permanent
from service.ingest.cursor import Cursor, dump_cursor
from service.observe import metrics
from tests.ingest.harness import Box, following
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, Event, until

pytestmark = pytest.mark.fault("D19")


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


def ours(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events if "subject" in event.body and ".box." in event.subject]


async def run(imap_stub: ImapStub, bus: Bus, **changes: object) -> Box:
    """Until everything is caught up; then stop."""
    box = Box(imap_stub.port, **changes)  # type: ignore[arg-type]
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
    return box


async def strangers(bus: Bus, count: int = 1, *, kind: str = "x", **headers: str) -> None:
    """Messages of somebody else on the mailbox's subjects, others' events between them."""
    for _ in range(count):
        await bus.publish(f"{bus.subjects.prefix}.in.box.INBOX.{kind}", b"{}", headers)
        await bus.publish(f"{bus.subjects.prefix}.in.other.INBOX.changed", b"{}")


@pytest.mark.parametrize("kind", ["x", "received"])
@pytest.mark.parametrize("cursor", [None, "", "{}", "[" * 30_000, '{"v":1,"source":7}'])
async def test_a_strangers_message_at_the_end_is_stepped_over_and_said_once(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, kind: str, cursor: str | None
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    await run(imap_stub, bus)
    await strangers(bus, 3, kind=kind, **({} if cursor is None else {CURSOR_HEADER: cursor}))
    before = metrics.FOREIGN_EVENTS._value.get()
    imap_stub.messages[3] = mail(3)
    box = await run(imap_stub, bus)
    assert box.states == []
    assert [alarm.what for alarm in box.alarms] == [
        "message 8 of the log is none of mailbus's; it goes on from its own last one"
    ]
    assert metrics.FOREIGN_EVENTS._value.get() == before + 1
    again = await run(imap_stub, bus)
    assert again.alarms == []
    assert ours(await reader.events()) == ["mail 1", "mail 2", "mail 3"]


async def test_a_strangers_message_while_it_runs_delays_nothing_but_the_next_commit(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: mail(1)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
        for number in (2, 3):
            await strangers(bus, 2)
            await imap_stub.deliver(number, mail(number))
            await reader.wait_received(number)
    assert box.states == []
    assert len(box.alarms) == 2
    assert ours(await reader.events()) == ["mail 1", "mail 2", "mail 3"]


async def test_a_mailbox_whose_only_message_is_a_strangers_begins_by_the_initial_rule(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    await strangers(bus, 2)
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    box = Box(imap_stub.port, initial="new")
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
        await imap_stub.deliver(3, mail(3))
        await reader.wait_received(1)
    events = await reader.events()
    assert ours(events) == ["mail 3"]
    assert [event.kind for event in events if ".box." in event.subject] == ["x", "x", "reset", "received"]


async def test_where_no_event_of_ours_is_left_the_copy_tells_where_to_go_on(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    await run(imap_stub, bus)
    await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN", subject=f"{prefix}.in.box.>")
    await strangers(bus)
    imap_stub.messages[3] = mail(3)
    box = await run(imap_stub, bus)
    assert len(box.alarms) == 1
    assert ours(await reader.events()) == ["mail 3"]


async def test_an_end_that_was_erased_is_no_stranger_and_its_copy_serves(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    await run(imap_stub, bus)
    last = (await reader.received())[-1]
    await reader.nc.jetstream().delete_msg(f"{prefix.upper()}_IN", last.seq)
    imap_stub.messages[4] = mail(4)
    box = await run(imap_stub, bus)
    assert box.alarms == []
    assert ours(await reader.events()) == ["mail 1", "mail 2", "mail 4"]


@pytest.mark.parametrize("on_top", [0, 2])
@pytest.mark.parametrize("text", [dump_cursor(Cursor("s", 7, 9, 9, "w/1", v=2)), '{"v":3,"place":"elsewhere"}'])
async def test_a_newer_versions_position_is_no_strangers_and_nothing_is_announced(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, text: str, on_top: int
) -> None:
    imap_stub.messages = {1: mail(1)}
    await run(imap_stub, bus)
    await strangers(bus, kind="moved", **{CURSOR_HEADER: text})
    await strangers(bus, on_top)
    imap_stub.messages[2] = mail(2)
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: bool(box.states))
    error = box.states[0][1]
    assert isinstance(error, Permanent)
    assert "run the newer mailbus" in error.remedy
    assert "message 3 of the log" in error.where
    assert ours(await reader.events()) == ["mail 1"]


async def test_more_strangers_messages_than_are_stepped_over_wait_for_a_person(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.publish.FOREIGN_LIMIT", 5)
    imap_stub.messages = {1: mail(1)}
    await run(imap_stub, bus)
    await strangers(bus, 6)
    imap_stub.messages[2] = mail(2)
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: bool(box.states))
        assert isinstance(box.states[0][1], Permanent)
        await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN", subject=f"{prefix}.in.box.INBOX.x")
        await until(lambda: box.status.state == "watching" and box.status.last_uid == 2)
    assert ours(await reader.events()) == ["mail 1", "mail 2"]
