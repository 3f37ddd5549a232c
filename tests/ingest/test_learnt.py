"""What is learnt of a maildrop is its account's own, and nothing is left of what nobody names."""

import pytest

from service.bus import Bus
from service.contract import CURSOR_HEADER
from service.errors import Transient
from service.ingest import Lesson
from service.ingest.cursor import load_cursor
from tests.ingest.away import Away, by_imap, learner, looked, standing_in
from tests.ingest.test_paired import arrive, body
from tests.pop3.harness import answering
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader
from tests.servers.pop3_stub import Mail, Pop3Stub

pytestmark = pytest.mark.fault("B07")


async def test_two_accounts_that_read_one_maildrop_keep_what_each_has_learnt(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 3))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED

    async def nothing() -> None: ...

    another = learner(bus, Away(pop3_stub.port), account="another")
    assert await another.learn(nothing) is Lesson.PROVED
    arrive(imap_stub, pop3_stub, range(3, 4))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    tail = await bus.log.tail(bus.subjects.mailbox_filter("box", "INBOX"))
    assert tail is not None
    cursor = load_cursor(tail.headers[CURSOR_HEADER])
    assert cursor is not None
    assert await another.recall(cursor, tail.seq) is not None


async def test_where_two_learn_at_once_nothing_is_left_that_nobody_names(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 3))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    arrive(imap_stub, pop3_stub, range(3, 4))
    await by_imap(bus, imap_stub.port)
    one, two = learner(bus, Away(pop3_stub.port)), learner(bus, Away(pop3_stub.port))

    async def meanwhile() -> None:
        arrive(imap_stub, pop3_stub, range(4, 5))
        await two.learn(nothing)

    async def nothing() -> None: ...

    assert await one.learn(meanwhile) is Lesson.PROVED
    store = await bus.nc.jetstream().object_store(bus.subjects.state)
    assert len(await store.list()) == 1
    assert await two.is_proved()


async def test_a_look_asks_for_each_list_once(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 3))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    assert pop3_stub.commands.count("UIDL") == pop3_stub.commands.count("LIST") == 1


async def test_ids_that_are_made_of_uids_are_not_looked_at_again_however_much_comes(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: body(1)}
    pop3_stub.mails = [Mail(f"{1:08x}{7:08x}", body(1))]
    await by_imap(bus, imap_stub.port)
    one = learner(bus, Away(pop3_stub.port))

    async def nothing() -> None: ...

    assert await one.learn(nothing) is Lesson.LINKED
    imap_stub.messages[2] = body(2)
    await by_imap(bus, imap_stub.port)
    assert await one.learn(nothing) is Lesson.LINKED
    assert pop3_stub.commands.count("UIDL") == 1


async def test_a_list_of_ids_that_ends_too_soon_teaches_nothing(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 3))
    await by_imap(bus, imap_stub.port)
    pop3_stub.hooks["UIDL"] = answering("+OK\r\n1 id-1\r\n.\r\n")
    one = learner(bus, Away(pop3_stub.port))

    async def nothing() -> None: ...

    with pytest.raises(Transient, match="falls short"):
        await one.learn(nothing)
    assert not await one.is_proved()


async def test_a_mail_that_imap_told_and_could_not_read_is_not_told_again(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 4))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items or 4 not in imap_stub.uids_of(wanted):
            return False
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.hooks["UID FETCH"] = fetch
    arrive(imap_stub, pop3_stub, range(4, 5))
    await by_imap(bus, imap_stub.port)
    imap_stub.hooks.clear()
    arrive(imap_stub, pop3_stub, range(5, 6))
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(5)
        await looked(away)
    await by_imap(bus, imap_stub.port)
    told = [event.body.get("subject") for event in await reader.received()]
    assert told == ["mail 1", "mail 2", "mail 3", None, "mail 5"]
