"""What a mailbox without a position may have been called: by its identity, or by a number that is its own."""

from datetime import UTC, datetime

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.ingest import Copies, Epoch, Kin, Lineage
from service.ingest.cursor import Copy, Cursor, copy_key, dump_cursor

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TIME = 1_700_000_000


@pytest.mark.parametrize(
    ("uidvalidity", "mailbox_id", "kin"),
    [
        (TIME, "", [Kin("a", proved=False)]),
        (TIME + 1, "", []),  # two have it, and no message speaks for either
        (TIME + 9, "F3", [Kin("d", proved=True)]),
        (TIME, "F9", [Kin("a", proved=False)]),  # nobody has said what that one's was
        (TIME + 3, "F9", []),  # it was another
        (TIME + 4, "", []),  # it is there still
        (7, "", []),  # any mailbox may have that
        (TIME + 8, "", []),
    ],
)
async def test_a_mailbox_is_known_again(bus: Bus, uidvalidity: int, mailbox_id: str, kin: list[Kin]) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    gone = [
        ("a", TIME, ""),
        ("b", TIME + 1, ""),
        ("c", TIME + 1, ""),
        ("d", TIME + 3, "F3"),
        ("here", TIME + 4, ""),
        ("e", 7, ""),
    ]
    for name, number, box in gone:
        cursor = Cursor("source", number, 9, 0, "one/1", box=box)
        await copies.write(copy_key("box", name), Copy(CREATED, 3, cursor, cursor, name))
    cursor = Cursor("source", TIME + 8, 9, 0, "one/1")
    await copies.write(copy_key("another", "f"), Copy(CREATED, 3, cursor, cursor, "f"))
    lineage = Lineage(bus, copies, "box")
    assert await lineage.kin("new", Epoch(uidvalidity, 10, 9, mailbox_id=mailbox_id), {"here", "new"}) == kin


async def test_one_that_went_just_now_is_among_them(bus: Bus) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    lineage = Lineage(bus, copies, "box")
    assert await lineage.kin("new", Epoch(TIME, 10, 9), {"new"}) == []
    cursor = Cursor("source", TIME, 9, 0, "one/1")
    copies.note(copy_key("box", "old"), Copy(CREATED, 3, cursor, cursor, "old"))
    lineage.gone("old")
    assert await lineage.kin("new", Epoch(TIME, 10, 9), {"new"}) == [Kin("old", proved=False)]


async def test_one_whose_copy_was_never_written_is_known_by_the_log(bus: Bus) -> None:
    cursor = Cursor("source", TIME, 9, 0, "one/1")
    await bus.publish(bus.subjects.event("box", "Old & odd.", "reset"), b"{}", {"Mail-Cursor": dump_cursor(cursor)})
    await bus.publish(bus.subjects.event("box", "new", "reset"), b"{}", {"Mail-Cursor": dump_cursor(cursor)})
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    assert await lineage.kin("new", Epoch(TIME, 10, 9), {"new"}) == [Kin("Old & odd.", proved=False)]


@pytest.mark.parametrize(("box", "proved"), [("F1", True), ("", False)])
async def test_of_the_names_that_one_had_the_last_is_looked_at_first(bus: Bus, box: str, proved: bool) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    for seq, name in [(3, "first"), (9, "last"), (5, "second")]:
        cursor = Cursor("source", TIME, 9, 0, "one/1", fingerprint="f", box=box)
        await copies.write(copy_key("box", name), Copy(CREATED, seq, cursor, cursor, name))
    lineage = Lineage(bus, copies, "box")
    found = await lineage.kin("new", Epoch(TIME, 10, 9, mailbox_id=box), {"new"})
    assert found == [Kin(name, proved=proved) for name in ("last", "second", "first")]
