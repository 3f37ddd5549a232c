"""Flags of many messages: each set is held once, and a server cannot have more of them held than there is room for."""

from collections.abc import AsyncIterator

import pytest

from service.clock import SystemClock
from service.errors import PeerError
from service.imap import GMAIL, Changes, Session
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection, ImapStub

ROOM = 64 * 1024


@pytest.fixture
async def changes(imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Changes]:
    """A mailbox of 400, of which each may have one flag, in 64 KiB."""
    monkeypatch.setattr("service.imap.flagsets.ROOM_BYTES", ROOM)
    imap_stub.messages = dict.fromkeys(range(1, 401), b"mail")
    session = await Session.open(options(imap_stub.port), clock=SystemClock())
    found = Changes(session)
    await found.open("INBOX")
    yield found
    session.abort()


async def test_messages_that_have_the_same_flags_share_them(changes: Changes, imap_stub: ImapStub) -> None:
    imap_stub.flags = {uid: f"\\Seen of{uid % 2}" for uid in imap_stub.messages}
    for rows in (await changes.session.survey(1, 400), (await changes.flags(1, 400, 0)).rows):
        assert [set(row.flags) for row in rows] == [{r"\Seen", f"of{uid % 2}"} for uid in range(1, 401)]
        assert len({id(row.flags) for row in rows}) == 2


@pytest.mark.fault("A13")
async def test_flags_of_each_messages_own_are_held_as_far_as_there_is_room(
    changes: Changes, imap_stub: ImapStub
) -> None:
    imap_stub.flags = {uid: f"of{uid}" for uid in imap_stub.messages}
    assert len(await changes.session.survey(1, 100)) == 100
    assert len((await changes.flags(1, 100, 0)).rows) == 100
    with pytest.raises(PeerError, match="flags of messages take over"):
        await changes.session.survey(1, 400)


async def test_those_of_messages_that_are_not_kept_take_no_room(
    changes: Changes, imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imap.session.SURVEY_LIMIT_ROWS", 40)
    imap_stub.flags = {uid: f"of{uid}" for uid in imap_stub.messages}
    rows = await changes.session.survey(1, 400)
    assert [(row.uid, row.flags) for row in rows] == [(uid, {f"of{uid}"}) for uid in range(1, 41)]


@pytest.mark.fault("A13")
async def test_so_are_labels(changes: Changes, imap_stub: ImapStub) -> None:
    own = False

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        for uid in imap_stub.uids_of(arguments.split()[0]):
            label = f"of{uid if own else uid % 2}"
            await connection.send(f"* {uid} FETCH (UID {uid} FLAGS () RFC822.SIZE 4 X-GM-LABELS ({label}))\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.hooks["UID FETCH"] = fetch
    changes.session.capabilities |= {GMAIL}
    for rows in (await changes.session.survey(1, 400), (await changes.flags(1, 400, 0)).rows):
        assert [set(row.labels.flags) for row in rows] == [{f"of{uid % 2}"} for uid in range(1, 401)]
        assert len({id(row.labels) for row in rows}) == 2
    own = True
    with pytest.raises(PeerError, match="flags of messages take over"):
        await changes.flags(1, 400, 0)
