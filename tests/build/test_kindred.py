"""What a mailbox came as, and what else it may have been called: asked in this order, and no longer than it counts."""

from types import SimpleNamespace
from typing import cast

import pytest

from service.build.kindred import Family, Kindred
from service.ingest import Cursor, Epoch, Former, ImapSource, Kin

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
