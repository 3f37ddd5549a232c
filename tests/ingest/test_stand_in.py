"""Where POP3 cannot stand in for IMAP, and what it tells where it can."""

import asyncio

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.errors import Permanent, Transient
from service.ingest import AnnounceOptions, LinkedStandIn, Tries
from service.ingest.surveyed import Fetched
from service.parsing import Raw
from service.pop3 import Door
from tests.ingest.harness import Box, following
from tests.ingest.maildrop import body
from tests.ingest.parts import parts_of
from tests.ingest.view import watching
from tests.pop3.harness import cutting, options
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub


async def stand_in(
    bus: Bus, port: int, *, host: str = "127.0.0.1", user: str = "user", tries: Tries | None = None
) -> LinkedStandIn:
    """As it begins: from where the log stands."""
    clock = SystemClock()
    parts = parts_of(bus, AnnounceOptions(0, bus.max_payload, Raw.PROBLEM), account="box", alarm=pytest.fail)
    position = await parts.events.resume(contest=False)
    door = Door(options(port, username=user), asyncio.Semaphore(1), clock, locked_s=0.01)
    return LinkedStandIn(
        door, parts.memory, position, tries or Tries(), host=host, mailbox="INBOX", poll_s=0.05, clock=clock
    )


async def announced(imap_stub: ImapStub, bus: Bus) -> None:
    """Mail 1 and 2, by IMAP, in the epoch 7."""
    imap_stub.messages = {uid: body(uid) for uid in (1, 2)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)


@pytest.mark.fault("B07")
async def test_it_shows_what_is_above_the_cursor_under_its_number(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    await announced(imap_stub, bus)
    pop3_stub.mails = [Mail(f"{uid:08x}{7:08x}", body(uid)) for uid in (1, 2, 5, 9)]
    source = await stand_in(bus, pop3_stub.port)
    epoch = await source.open()
    assert (epoch.uidvalidity, epoch.uidnext) == (7, 10)
    assert [row.uid for row in await source.survey(1, None)] == [5, 9]
    assert await source.flags(1, 9, 0) == await source.flags(1, 2, 5)
    await source.close()


@pytest.mark.fault("B07")
@pytest.mark.parametrize("case", ["no links", "another epoch", "another host", "never opened"])
async def test_where_numbers_are_not_the_same_it_does_not_begin(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, case: str
) -> None:
    if case != "never opened":
        await announced(imap_stub, bus)
    uidvalidity = 8 if case == "another epoch" else 7
    pop3_stub.mails = [Mail("x1" if case == "no links" else f"{3:08x}{uidvalidity:08x}", body(3))]
    source = await stand_in(bus, pop3_stub.port, host="elsewhere" if case == "another host" else "127.0.0.1")
    with pytest.raises(Permanent, match="cannot stand in"):
        await source.open()
    source.abort()


@pytest.mark.fault("B07")
async def test_a_mail_is_as_large_as_it_is_whatever_the_server_lists(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    await announced(imap_stub, bus)
    pop3_stub.mails = [Mail(f"{5:08x}{7:08x}", body(5))]

    async def lists(connection: Pop3Connection, arguments: str) -> bool:
        await connection.send("+OK\r\n1 7\r\n.\r\n")
        return True

    pop3_stub.hooks["LIST"] = lists
    source, found = await stand_in(bus, pop3_stub.port), list[Fetched]()
    await source.open()
    await source.fetch(await source.survey(1, None), found.append, whole=True)
    assert [message.surveyed.size for message in found] == [len(body(5))]
    await source.close()


@pytest.mark.fault("B07")
async def test_a_mail_that_broke_three_connections_is_not_shown_any_more(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    await announced(imap_stub, bus)
    pop3_stub.mails = [Mail(f"{uid:08x}{7:08x}", body(uid)) for uid in (5, 6)]
    pop3_stub.hooks["RETR"] = cutting()
    tries = Tries()
    for _ in range(3):
        source = await stand_in(bus, pop3_stub.port, tries=tries)
        await source.open()
        rows = await source.survey(1, None)
        assert [row.uid for row in rows] == [5, 6]
        with pytest.raises(Transient):
            await source.fetch(rows, lambda _: None, whole=True)
        source.abort()
    source = await stand_in(bus, pop3_stub.port, tries=tries)
    await source.open()
    assert [row.uid for row in await source.survey(1, None)] == [6]
    await source.close()
