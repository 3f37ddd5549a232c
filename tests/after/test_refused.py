"""What the mail server or NATS do not let happen waits, is said, and holds up nothing else."""

import asyncio
from collections.abc import Callable

import pytest

from service.after import RefusedPace
from service.bus import Bus
from service.observe import metrics
from tests.after.harness import (
    DELETE,
    MOVE,
    SEEN,
    announce,
    make,
    record,
    subjects,
    uidvalidity,
    wait_done,
    wait_subjects,
    working,
)
from tests.ingest.harness import Box
from tests.ingest.view import mail, quick
from tests.servers.bus import bus_at
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import until
from tests.servers.nats import NatsServer


def stub_box(stub: ImapStub, count: int) -> Box:
    stub.messages = {uid: mail(uid) for uid in range(1, count + 1)}
    return Box(stub.port, after=SEEN)


class Stores:
    """What is stored, by UID; `refuses` says NO to a command that names one of these."""

    def __init__(self, stub: ImapStub, answer: str = "NO not this one") -> None:
        self.stub = stub
        self.answer = answer
        self.refuses: set[int] = set()
        self.done: list[int] = []
        self.asked = 0
        stub.hooks["UID STORE"] = self.store

    async def store(self, connection: Connection, tag: str, arguments: str) -> bool:
        uids = self.stub.uids_of(arguments.partition(" ")[0])
        self.asked += 1
        if self.refuses & set(uids):
            if not self.answer:
                connection.cut()
            await connection.send(f"{tag} {self.answer}\r\n")
        else:
            self.done += uids
            await connection.send(f"{tag} OK done\r\n")
        return True


def given_up() -> float:
    return metrics.AFTER.labels(result="given_up")._value.get()


@pytest.mark.parametrize("answer", ["NO not this one", "NO [INUSE] try again later"])
async def test_a_message_that_is_refused_holds_up_no_other_and_is_said(
    bus: Bus, imap_stub: ImapStub, answer: str
) -> None:
    box, stores, before = stub_box(imap_stub, 9), Stores(imap_stub, answer), given_up()
    stores.refuses = {4}
    seq = await announce(bus, box, 7, list(range(1, 10)))
    async with working(bus, box) as desk:
        await wait_done(bus, box, seq)
        await until(lambda: bool(desk.said))
        assert sorted(stores.done) == [1, 2, 3, 5, 6, 7, 8, 9]
        (said,) = desk.said
        assert "`after: seen` is not done to" in said.what
        assert answer[3:] in said.what
    assert given_up() == before + 1


async def test_what_is_tried_again_at_once_is_not_forgotten(bus: Bus, imap_stub: ImapStub) -> None:
    """Its time comes while the round that refused it is not over yet."""
    box, stores = stub_box(imap_stub, 3), Stores(imap_stub)
    stores.refuses = {2}
    seq = await announce(bus, box, 7, [1, 2, 3])
    async with working(bus, box, pace=RefusedPace(first_s=0.0, factor=1.0, max_s=0.0, tries=3)) as desk:
        await wait_done(bus, box, seq)
        await until(lambda: bool(desk.said))


async def test_a_message_that_is_refused_twice_is_done_the_third_time(bus: Bus, imap_stub: ImapStub) -> None:
    box, stores = stub_box(imap_stub, 2), Stores(imap_stub)
    stores.refuses = {2}
    seq = await announce(bus, box, 7, [1, 2])
    async with working(bus, box) as desk:
        while not ((kept := await record(bus, box)) and kept.left):  # noqa: ASYNC110 a key rings no bell
            await asyncio.sleep(0.002)
        stores.refuses = set()
        await wait_done(bus, box, seq)
        assert (stores.done, desk.said) == ([1, 2], [])


async def test_where_all_are_refused_the_mailbox_waits(bus: Bus, imap_stub: ImapStub) -> None:
    box, stores = stub_box(imap_stub, 20), Stores(imap_stub)
    stores.refuses = set(range(1, 21))
    seq = await announce(bus, box, 7, list(range(1, 21)))
    async with working(bus, box) as desk:
        await until(lambda: len(desk.said) > 1)
        assert stores.done == []
        assert not ((kept := await record(bus, box)) and (kept.seq or kept.left))
        stores.refuses = set()
        await wait_done(bus, box, seq)
        assert stores.done == list(range(1, 21))


async def test_a_message_that_ends_each_connection_is_found_and_passed(bus: Bus, imap_stub: ImapStub) -> None:
    box, stores = stub_box(imap_stub, 4), Stores(imap_stub, answer="")
    stores.refuses = {3}
    seq = await announce(bus, box, 7, [1, 2, 3, 4])
    async with working(bus, box) as desk:
        await wait_done(bus, box, seq)
        await until(lambda: bool(desk.said))
        assert sorted(stores.done) == [1, 2, 4]


async def test_a_mailbox_that_may_be_read_only_is_said(bus: Bus, imap_stub: ImapStub) -> None:
    box, stores = stub_box(imap_stub, 1), Stores(imap_stub)

    async def select(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n{tag} OK [READ-ONLY] done\r\n")
        return True

    imap_stub.hooks["SELECT"] = select
    seq = await announce(bus, box, 7, [1])
    async with working(bus, box) as desk:
        await until(lambda: bool(desk.said))
        assert "read only" in desk.said[0].what
        assert stores.done == []
        del imap_stub.hooks["SELECT"]
        await wait_done(bus, box, seq)
    assert stores.done == [1]


@pytest.mark.parametrize("habit", ["qresync", "uidplus"])
async def test_mail_waits_for_the_mailbox_that_it_is_moved_to(
    bus: Bus, dovecot_that: Callable[[str], Dovecot], prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, [mail(1)])
    box = quick(server, prefix, after=MOVE)
    seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, server, prefix), [1])
    async with working(bus, box) as desk:
        await until(lambda: bool(desk.said))
        assert desk.said[0].what.startswith("there is no mailbox Done to move mail to")
        await asyncio.to_thread(make, server, prefix, "Done")
        await wait_done(bus, box, seq)
    assert await subjects(server, prefix, "Done") == ["mail 1"]


async def test_a_mailbox_that_fails_holds_up_no_other(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [mail(1)])
    box = quick(dovecot, prefix, after=DELETE)
    gone = quick(dovecot, prefix, after=DELETE, mailbox="Gone")
    await announce(bus, gone, 7, [1])
    seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, dovecot, prefix), [1])
    async with working(bus, gone) as desk:
        await until(lambda: bool(desk.said))
        desk.work.begin("INBOX")
        await wait_done(bus, box, seq)
        assert desk.proofs == 1  # one of them fails still
    assert await subjects(dovecot, prefix) == []


@pytest.mark.fault("D13")
async def test_while_nats_is_away_nothing_is_done(dovecot: Dovecot, own_nats: NatsServer, prefix: str) -> None:
    await dovecot.append(prefix, [mail(1)])
    box = quick(dovecot, prefix, after=DELETE)
    async with bus_at(own_nats.url, prefix) as bus:
        seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, dovecot, prefix), [1])
        await own_nats.kill()
        await until(lambda: not bus.connected)
        async with working(bus, box):
            assert await subjects(dovecot, prefix) == ["mail 1"]
            await own_nats.start()
            await wait_subjects(dovecot, prefix, [])
            await wait_done(bus, box, seq)
