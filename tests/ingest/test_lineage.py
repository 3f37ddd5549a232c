"""What a mailbox without a position may have been called: by its identity, or by a number that is its own."""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from service.bus import Bus
from service.clock import SystemClock
from service.ingest import Copies, Epoch, Kin, Lineage
from service.ingest.cursor import Before, Copy, Cursor, Named, before_of, copy_key, dump_cursor, name_id
from service.ingest.left import LEFT_LIMIT, TAKEN_LIMIT, LeftEpoch, LeftEpochs
from service.ingest.resync import Stands

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


async def test_of_more_than_are_looked_at_those_that_went_last_are(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ingest.lineage.LOOKS_LIMIT", 1)
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    cursor = Cursor("source", TIME, 9, 0, "one/1", fingerprint="f")
    for seq, name in enumerate(("a", "b", "c")):
        await copies.write(copy_key("box", name), Copy(CREATED, seq, cursor, cursor, name))
    lineage, here = Lineage(bus, copies, "box"), Epoch(TIME, 10, 9)
    assert await lineage.kin("new", here, {"a", "b", "c"}) == []
    for name in ("b", "a", "c", "b"):
        lineage.gone(name)
        assert [one.mailbox for one in await lineage.kin("new", here, {"new"})] == [name]


async def test_others_go_while_those_that_are_gone_are_looked_at(bus: Bus) -> None:
    class Slow(Copies):
        async def load(self, key: str) -> Copy | None:
            lineage.gone(f"went while {key} was looked at")
            return await super().load(key)

    copies = Slow(bus.key_value(bus.subjects.cursors), SystemClock())
    lineage = Lineage(bus, copies, "box")
    cursor = Cursor("source", TIME, 9, 0, "one/1", fingerprint="f")
    for seq, name in enumerate(("a", "b")):
        await copies.write(copy_key("box", name), Copy(CREATED, seq, cursor, cursor, name))
    found = await lineage.kin("new", Epoch(TIME, 10, 9), {"new"})
    assert [one.mailbox for one in found] == ["b", "a"]


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


@pytest.mark.parametrize(
    ("former", "kin"),
    [
        (name_id("first"), ["last", "first"]),  # one mailbox, which has no message now
        ("", ["first"]),  # two that have a number
    ],
)
async def test_the_last_name_of_one_that_has_no_message_any_more_is_not_behind_those_before(
    bus: Bus, former: str, kin: list[str]
) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    first = Cursor("source", TIME, 9, 0, "one/1", fingerprint="f")
    last = Cursor("source", TIME, 10, 0, "one/1", former=former)
    for seq, name, cursor in [(3, "first", first), (9, "last", last)]:
        await copies.write(copy_key("box", name), Copy(CREATED, seq, cursor, cursor, name))
    found = await Lineage(bus, copies, "box").kin("new", Epoch(TIME, 11, 0), {"new"})
    assert [one.mailbox for one in found] == kin


def left_at(number: int, snapshot: str, box: str = "") -> Cursor:
    return Cursor("source", number, 9, 0, "one/1", fingerprint="f", box=box, state=Named(7, 3, snapshot))


def by(snapshot: str) -> Before:
    return Before(snapshot, TIME, 1, 9)


@pytest.mark.parametrize(("box", "proved"), [("F1", True), ("", False)])
async def test_an_epoch_that_a_name_has_left_is_found_although_the_name_is_there(
    bus: Bus, box: str, proved: bool
) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    lineage, cursor = Lineage(bus, copies, "box"), left_at(TIME, "snapshot", box)
    assert await lineage.left("old", cursor, 7) == []
    here = Epoch(TIME, 10, 9, mailbox_id=box)
    assert await lineage.kin("new", here, {"new", "old"}) == [Kin("old", proved, left=LeftEpoch("old", cursor, 7))]
    # What it left itself is its own.
    assert await lineage.kin("old", here, {"new", "old"}) == []
    await lineage.wait_left("old", here)
    # Back in it, it may leave it again: the snapshot of then is nobody's.
    assert await lineage.entered("old", here) == ["snapshot"]
    assert await lineage.kin("new", here, {"new", "old"}) == []


async def test_who_is_said_to_have_left_and_came_back_is_waited_for(bus: Bus) -> None:
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    await lineage.left("old", left_at(TIME, "then"), 7)
    here = Epoch(TIME, 10, 9)
    await lineage.entered("old", here)
    waiting = asyncio.create_task(lineage.wait_left("old", here))
    await lineage.left("old", left_at(TIME + 1, "another"), 8)
    assert not waiting.done()
    await lineage.left("old", left_at(TIME, "now"), 9)
    await asyncio.wait_for(waiting, 10)
    assert [one.left.seq for one in await lineage.kin("new", here, {"new", "old"}) if one.left] == [9]


async def test_who_still_stands_in_an_epoch_that_another_mailbox_has_is_known(bus: Bus) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    for name, number in [("unlooked", TIME), ("moved", TIME), ("other", TIME + 1)]:
        cursor = Cursor("source", number, 9, 0, "one/1")
        await copies.write(copy_key("box", name), Copy(CREATED, 3, cursor, cursor, name))
    stands = {"looked": Stands(TIME, ""), "moved": Stands(TIME + 2, "")}
    there = {"new", "unlooked", "looked", "moved", "other", "unknown"}
    found = await Lineage(bus, copies, "box").doubles("new", Epoch(TIME, 10, 9), there, stands.get)
    assert found == [Kin("looked", proved=False), Kin("unlooked", proved=False)]


async def test_who_stands_in_it_by_its_mailboxid_is_there_for_certain(bus: Bus) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    cursor = Cursor("source", TIME, 9, 0, "one/1", box="F1")
    await copies.write(copy_key("box", "unlooked"), Copy(CREATED, 3, cursor, cursor, "unlooked"))
    stands = {"looked": Stands(TIME, "F1"), "another": Stands(TIME, "F2")}
    here = Epoch(TIME, 10, 9, mailbox_id="F1")
    found = await Lineage(bus, copies, "box").doubles("new", here, {"unlooked", "looked", "another"}, stands.get)
    assert found == [Kin("looked", proved=True), Kin("unlooked", proved=True)]


async def test_what_a_name_left_is_kept_until_newer_ones_take_its_place_and_it_is_settled(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    for number in range(LEFT_LIMIT):
        assert await left.add(LeftEpoch(f"n{number}", left_at(TIME, f"s{number}"), number)) == []
    assert await left.settle("n0", "s0")
    assert not await left.settle("n0", "unheard of")
    # The first is nobody's now; the second its own mailbox still needs: whoever has it lets it go.
    assert await left.add(LeftEpoch("more", left_at(TIME, "more"), 99)) == ["s0"]
    assert await left.add(LeftEpoch("last", left_at(TIME, "last"), 100)) == []
    assert not await left.settle("n1", "s1")
    # Of one epoch what is known last counts.
    assert await left.settle("last", "last")
    assert await left.add(LeftEpoch("last", left_at(TIME, "newer"), 101)) == ["last"]
    assert [one.snapshot for one in await left.all()][-2:] == ["more", "newer"]


async def test_what_a_mailbox_recognises_by_stays_however_many_newer_ones_there_are(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    await left.add(LeftEpoch("old", left_at(TIME, "taken"), 1))
    await left.add(LeftEpoch("other", left_at(TIME, "free"), 2))
    await left.take("new", by("taken"))
    for name, snapshot in (("old", "taken"), ("other", "free")):
        assert await left.settle(name, snapshot)

    async def more(tag: str) -> list[str]:
        dropped = []
        for number in range(LEFT_LIMIT):
            entry = LeftEpoch(f"{tag}{number}", left_at(TIME, f"{tag}{number}"), 3 + number)
            dropped += await left.add(entry)
            await left.settle(entry.mailbox, entry.snapshot)
        return [one for one in dropped if one in {"taken", "free"}]

    assert await more("a") == ["free"]
    # Left once more, as after a kill, it is still another's.
    await left.add(LeftEpoch("old", left_at(TIME, "taken"), 1))
    await left.settle("old", "taken")
    assert await more("b") == []
    # Until whoever has it is done.
    await left.settle("new", "taken")
    assert await more("c") == ["taken"]


@pytest.mark.parametrize("settled", [True, False])
async def test_what_others_recognise_by_stays_although_its_mailbox_is_back_in_its_epoch(
    bus: Bus, settled: bool
) -> None:
    copies, here = Copies(bus.key_value(bus.subjects.cursors), SystemClock()), Epoch(TIME, 10, 9)
    lineage, left = Lineage(bus, copies, "box"), LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    await lineage.left("old", left_at(TIME, "taken"), 7)
    await lineage.taken("new", by("taken"))
    if settled:
        assert await lineage.settled("old", "taken")
    assert await lineage.entered("old", here) == []
    # Nobody finds the mailbox by it, and what it leaves next is another.
    assert await lineage.kin("third", here, {"third", "old"}) == []
    await lineage.left("old", left_at(TIME, "next"), 8)
    assert [(one.snapshot, bool(one.takers)) for one in await left.all()] == [("taken", True), ("next", False)]
    assert await lineage.settled("new", "taken")
    assert [bool(one.takers) for one in await left.all()] == [not settled, False]
    assert await lineage.settled("old", "taken")
    assert not any(one.takers for one in await left.all())


@pytest.mark.parametrize("settled", [True, False])
async def test_what_others_recognise_by_stays_although_its_mailbox_leaves_its_epoch_again_knowing_more(
    bus: Bus, settled: bool
) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    await left.add(LeftEpoch("old", left_at(TIME, "taken"), 7))
    await left.take("new", by("taken"))
    if settled:
        assert await left.settle("old", "taken")
    assert await left.add(LeftEpoch("old", left_at(TIME, "newer"), 8)) == []
    # It is nobody's, for whoever recognises by it alone.
    assert [(one.mailbox, one.snapshot) for one in await left.all()] == [("", "taken"), ("old", "newer")]
    await left.settle("new", "taken")
    await left.settle("old", "taken")
    assert not any(one.takers for one in await left.all())


async def test_who_recognises_by_another_one_needs_the_first_no_more(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    for snapshot in ("first", "second"):
        await left.add(LeftEpoch(snapshot, left_at(TIME, snapshot), 1))
        await left.take("new", by(snapshot))
    assert [bool(one.takers) for one in await left.all()] == [False, True]


async def test_those_that_never_say_that_they_are_done_keep_no_more_than_a_limit(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    for number in range(TAKEN_LIMIT + 1):
        await left.add(LeftEpoch(f"n{number}", left_at(TIME, f"s{number}"), number))
        await left.take(f"deleted{number}", by(f"s{number}"))
    await left.settle("n0", "s0")
    assert await left.add(LeftEpoch("last", left_at(TIME, "last"), 99)) == ["s0"]
    assert len(await left.all()) == TAKEN_LIMIT + 1


def not_gone_through(number: int, snapshot: str, beyond: str) -> Cursor:
    """An epoch in which nothing was announced yet; it recognises by what was known in the one before."""
    return replace(left_at(number, snapshot), events=1, before=Before(beyond, TIME, 1, 9))


async def test_what_an_epoch_that_is_kept_recognised_by_stays_for_whoever_goes_on_by_it(bus: Bus) -> None:
    left, newer = LeftEpochs(bus.key_value(bus.subjects.cursors), "box"), not_gone_through(TIME + 1, "", "beyond")
    await left.add(LeftEpoch("old", newer, 7))
    assert await left.settle("old", "beyond")
    await left.drop(lambda one: one.mailbox == "old")
    assert not await left.settle("old", "beyond")


@pytest.mark.parametrize("deaths_at", range(4))
async def test_who_dies_as_it_leaves_an_epoch_and_stays_deletes_nothing_that_its_heir_recognises_by(
    bus: Bus, deaths_at: int
) -> None:
    cursor = not_gone_through(TIME + 1, "", "beyond")

    def life() -> Lineage:
        return Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")

    steps = (
        lambda: life().left("old", cursor, 7),
        lambda: life().taken("heir", before_of(cursor, mailbox="old")),
        lambda: life().left("old", cursor, 7),
    )
    for one in steps[:deaths_at]:
        await one()
    # Its name was another's for a moment. It goes through its mail, and would delete what it recognised by.
    await life().stayed("old", cursor)
    assert await life().settled("old", "beyond") == (deaths_at >= 2)
    if deaths_at < 2:
        return
    # The heir, killed and begun anew, is through as well: now it is nobody's, and goes with the next that is left.
    await life().taken("heir", before_of(cursor, mailbox="old"))
    await life().settled("heir", "beyond")
    assert await life().left("another", left_at(TIME, "more"), 9) == ["beyond"]
    assert not await life().settled("another", "beyond")


async def test_what_an_heir_recognises_by_stays_though_its_mailbox_has_not_left_its_epoch(bus: Bus) -> None:
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    await lineage.taken("heir", before_of(left_at(TIME, "saved for the heir"), mailbox="old"))
    # Its name is there again, and what is known of it is saved anew: in another month, or with what came meanwhile.
    assert await lineage.settled("old", "saved for the heir")
    assert await lineage.left("old", left_at(TIME, "newer"), 8) == []
    assert await lineage.settled("heir", "saved for the heir")
    assert await lineage.left("another", left_at(TIME, "more"), 9) == ["saved for the heir"]


async def test_of_those_that_are_gone_for_good_no_more_is_noted_than_a_limit(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    async with asyncio.TaskGroup() as group:
        for number in range(TAKEN_LIMIT + 2):
            group.create_task(left.take(f"heir{number}", before_of(left_at(TIME, f"s{number}"), mailbox=f"n{number}")))
    assert [one.snapshot for one in await left.all()] == [f"s{number}" for number in range(2, TAKEN_LIMIT + 2)]


async def test_what_others_recognise_by_does_not_go_for_what_nobody_would_delete(bus: Bus) -> None:
    left = LeftEpochs(bus.key_value(bus.subjects.cursors), "box")
    await left.add(LeftEpoch("old", left_at(TIME, "taken"), 1))
    await left.take("new", by("taken"))
    assert await left.settle("old", "taken")
    # A tree of mailboxes that are renamed twice before they are gone through.
    for number in range(TAKEN_LIMIT + 2):
        cursor = not_gone_through(TIME + 1, "", f"beyond{number}")
        await left.take(f"heir{number}", before_of(cursor, mailbox=f"old{number}"))
    assert await left.add(LeftEpoch("more", left_at(TIME, "more"), 2)) == []
    assert "taken" in [one.snapshot for one in await left.all()]
    assert len(await left.all()) == TAKEN_LIMIT + 1
