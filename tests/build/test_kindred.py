"""What a mailbox came as, and what else it may have been called: asked in this order, and no longer than it counts."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from service.build.kindred import Family, Kindred
from service.bus import Bus
from service.clock import SystemClock
from service.ingest import Copies, Cursor, Desks, Epoch, Former, ImapSource, Kin, Lineage
from service.ingest.cursor import Named

TIME = 1_700_000_000


def stood(name: str, uidvalidity: int, box: str = "", *, proved: bool = False, seq: int = 5) -> Former:
    return Former(name, Cursor("source", uidvalidity, 9, 0, "one/1", box=box), "new", proved, seq)


def mailbox(last: Former | None) -> Kindred:
    """One that came as another went, which stood there."""

    async def looked(_: Kin) -> Former | None:
        return last

    async def former(*_: object, late: bool) -> list[Former]:
        return [stood("kept", TIME, seq=9 if late else 1)]

    family = cast(Family, SimpleNamespace(last=looked, former=former))
    return Kindred(family, "New", Kin("Old", proved=False), cast(ImapSource, None), new=True)


@pytest.mark.parametrize(
    ("last", "mailbox_id", "names"),
    [
        (stood("Old", TIME), "", ["Old"]),
        (stood("Old", TIME + 1, proved=True), "", ["Old"]),  # numbered anew with its name
        (stood("Old", TIME + 1), "", ["kept"]),
        (stood("Old", TIME + 1, "F1"), "F1", ["Old"]),
        (stood("Old", TIME, "F2", proved=True), "F1", ["kept"]),
        (None, "", ["kept"]),
    ],
)
async def test_the_one_that_went_as_it_came_counts_where_it_is_of_its_epoch(
    last: Former | None, mailbox_id: str, names: list[str]
) -> None:
    found = await mailbox(last).former(Epoch(TIME, 10, 9, mailbox_id=mailbox_id), begun=False)
    assert [one.mailbox for one in found] == names


async def test_once_it_has_a_position_it_is_no_more_what_it_came_as() -> None:
    one = mailbox(stood("Old", TIME + 1, proved=True, seq=7))
    epoch = Epoch(TIME, 10, 9)
    assert [former.mailbox for former in await one.later(epoch, 5)] == ["Old"]
    one.began()
    assert [former.mailbox for former in await one.former(epoch, begun=True)] == ["kept"]
    assert [former.mailbox for former in await one.later(epoch, 5)] == ["kept"]


async def test_who_was_about_to_leave_its_epoch_and_stayed_is_waited_for_when_it_leaves_it(bus: Bus) -> None:
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    family = cast(Family, SimpleNamespace(lineage=lineage))
    one = Kindred(family, "Old", None, cast(ImapSource, None), new=False)
    here = Epoch(TIME, 10, 9)

    def at(last: int, turn: int = 0) -> Cursor:
        return Cursor("source", TIME, last, 0, "one/1", turn=turn, fingerprint="f", state=Named(7, 3, f"at {last}"))

    # The epoch before had the same number: another mailbox may be in it.
    await one.left(at(3), 3)
    assert await one.stayed(at(9, turn=1)) == []
    assert [kin.left.seq for kin in await lineage.kin("New", here, {"New", "Old"}) if kin.left] == [3]
    for life in (one, Kindred(family, "Old", None, cast(ImapSource, None), new=False)):
        # Its name was another's for a moment; nothing was told of that.
        await life.left(at(9, turn=1), 7)
        assert await life.stayed(at(9, turn=1)) == ["at 9"]
        assert await life.stayed(at(9, turn=1)) == []
        waiting = asyncio.create_task(lineage.wait_left("Old", here))
        await life.left(at(12, turn=1), 12)
        await asyncio.wait_for(waiting, 10)
        assert [kin.left.seq for kin in await lineage.kin("New", here, {"New", "Old"}) if kin.left] == [12]


@pytest.mark.fault("A18")
@pytest.mark.parametrize(
    ("said", "proved", "names"),
    [
        (TIME + 1, False, ["Other"]),  # another mailbox has its name by now
        (None, False, ["Other"]),  # nobody has, at this moment
        (TIME, False, []),  # two that were made in the same second
        (TIME, True, ["Other"]),
    ],
)
async def test_one_that_stands_where_it_is_counts_unless_it_is_there_itself(
    said: int | None, proved: bool, names: list[str]
) -> None:
    async def doubles(*_: object) -> list[Kin]:
        return [Kin("Other", proved)]

    async def none(*_: object) -> list[Kin]:
        return []

    async def last(one: Kin) -> Former:
        return stood(one.mailbox, TIME)

    async def uidvalidity_of(_: str) -> int | None:
        return said

    family = Family(
        cast(Lineage, SimpleNamespace(doubles=doubles, kin=none)),
        Desks(),
        last=last,
        initial="new",
        there=lambda: {"Other", "New"},
        followed=list,
    )
    source = cast(ImapSource, SimpleNamespace(uidvalidity_of=uidvalidity_of))
    found = await family.former("New", Epoch(TIME, 10, 9), source, late=True)
    assert [one.mailbox for one in found] == names
