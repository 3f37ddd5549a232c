"""A mailbox that was open on the connection of commands: opened anew, refused for now, looked at over a new one."""

from pathlib import Path

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.errors import Transient
from service.imap import NotConnected, Pool, WritingSession, writing
from tests.commands.conftest import mail, options
from tests.commands.test_connection import Hand, stub_desk
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub


async def test_a_server_that_says_when_to_come_again_is_left_alone_until_then() -> None:
    clock, tries = Hand(), 0

    async def connect() -> WritingSession:
        nonlocal tries
        tries += 1
        raise Transient("throttled", retry_after_s=300.0)

    pool = Pool(connect, clock, where="a")  # type: ignore[arg-type]
    for moved, expected in [(0, 1), (299, 1), (2, 2)]:
        clock.at += moved
        with pytest.raises(NotConnected):
            async with pool.session():
                pass
        assert tries == expected


@pytest.mark.parametrize("said", ["[THROTTLED] slow", "[LIMIT] x", "[INUSE] x", "[SERVERBUG] too many", "try later"])
async def test_a_mailbox_that_is_refused_for_now_costs_no_login(
    bus: Bus, prefix: str, imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(writing, "OPEN_FRESH_S", 0.0)

    async def refuse(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"{tag} NO {said}\r\n")
        return True

    async with stub_desk(imap_stub, bus, prefix) as one:
        assert await one.ids() == []
        (connection,) = imap_stub.connections
        imap_stub.hooks["EXAMINE"] = refuse
        for _ in range(2):
            await one.refused("search", {"mailbox": "INBOX"})
        del imap_stub.hooks["EXAMINE"]
        assert await one.ids() == []
        assert imap_stub.connections == [connection]


async def test_a_mailbox_that_was_open_is_opened_anew_only_where_it_is_asked_for(
    bus: Bus, prefix: str, imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "OPEN_FRESH_S", 0.0)
    async with stub_desk(imap_stub, bus, prefix) as one:
        await one.ids()
        imap_stub.commands.clear()
        await one.ask("mailboxes")
        assert not any("EXAMINE" in line for line in imap_stub.commands)
        await one.ids()
        assert sum("EXAMINE" in line for line in imap_stub.commands) == 1


@pytest.mark.parametrize("uidvalidity", [7, 8])
async def test_status_on_a_new_connection_leaves_the_mailbox_open_that_was(
    imap_stub: ImapStub, uidvalidity: int
) -> None:
    imap_stub.messages = {1: mail("one")}

    async def refuse(connection: Connection, tag: str, _arguments: str) -> bool:
        del imap_stub.hooks["STATUS"]
        imap_stub.uidvalidity = uidvalidity
        await connection.send(f"{tag} NO [SERVERBUG] duplicate transaction log sequence\r\n")
        return True

    account = options(Dovecot(Path()), "user", port=imap_stub.port)
    session = await WritingSession.open(account, clock=SystemClock())
    await session.open_mailbox("Other", writing=True)
    await session.open_mailbox("INBOX", writing=True)
    imap_stub.hooks["STATUS"] = refuse
    if uidvalidity == 7:
        await session.status("Other", "UIDNEXT")
        assert [row.uid for row in await session.survey_these([1])] == [1]
    else:
        # Who goes on by the UIDs of before would mean other mail.
        with pytest.raises(Transient, match="made anew"):
            await session.status("Other", "UIDNEXT")
    session.abort()
