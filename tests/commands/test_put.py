"""What an earlier try has copied: found among all that came since, however much of it looks alike."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from service.bus import ServiceError
from service.commands.begun import Began
from service.commands.put import Sought, found_again
from service.imap import Identity, SurveyedMessage, WritingSession

SIZE = 100
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def target(rows: Sequence[SurveyedMessage], identities: dict[int, Identity]) -> WritingSession:
    """An open mailbox with these messages."""

    async def nothing(*_: object, **__: object) -> None:
        return None

    async def survey(_first: int, _last: int | None) -> Sequence[SurveyedMessage]:
        return rows

    async def known_by(uids: Sequence[int]) -> dict[int, Identity]:
        return {uid: identities[uid] for uid in uids if uid in identities}

    return cast(WritingSession, SimpleNamespace(open_mailbox=nothing, noop=nothing, survey=survey, identities=known_by))


def message(uid: int, *, minute: int = 0, size: int = SIZE) -> SurveyedMessage:
    return SurveyedMessage(uid, size, frozenset(), NOON + timedelta(minutes=minute))


def sought(*, minute: int = 0, identity: Identity | None = None) -> Sought:
    return Sought(SIZE, NOON + timedelta(minutes=minute), identity)


async def found(session: WritingSession, wanted: dict[int, Sought], *, uidnext: int) -> dict[int, int]:
    return await found_again(session, "there", Began("here", 7, 1), wanted, uidnext=uidnext)


async def test_each_message_is_the_copy_of_one() -> None:
    one, two = Identity(b"<1@x>", SIZE), Identity(b"<2@x>", SIZE)
    session = target([message(uid) for uid in range(1, 6)], {1: one, 2: two, 4: one})
    wanted = {11: sought(identity=one), 12: sought(), 13: sought(identity=one), 14: sought(), 15: sought(identity=one)}
    assert await found(session, wanted, uidnext=6) == {11: 1, 12: 3, 13: 4, 14: 5}


async def test_one_of_the_size_that_nothing_tells_apart_may_be_the_copy() -> None:
    session = target([message(1, minute=9), message(2)], {2: Identity(b"<1@x>", SIZE)})
    with pytest.raises(ServiceError) as refused:
        await found(session, {11: sought()}, uidnext=3)
    assert refused.value.code == 409


@pytest.mark.fault("A13")
async def test_500_among_30000_of_one_size_are_looked_up_and_not_looked_for() -> None:
    rows = [message(uid, minute=uid) for uid in range(1, 30_001)]
    wanted = {uid: sought(minute=uid) for uid in range(1, 501)}
    assert await found(target(rows, {}), wanted, uidnext=30_001) == {uid: uid for uid in range(1, 501)}
