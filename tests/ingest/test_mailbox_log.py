"""A mailbox's log alone, without a mail server: what is at its end, and who notices that it is not as it was left."""

import asyncio
import shutil

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from service.bus import Bus, MessageTooLarge, OutMessage
from service.clock import SystemClock
from service.contract import DeadReason
from service.errors import Transient
from service.ingest import Copies, DeadLetters, MailboxLog, Why, WriterIdentity
from service.ingest.cursor import Cursor
from tests.bus.conftest import payloads
from tests.servers.bus import bus_at
from tests.servers.mailbus import until
from tests.servers.nats import NatsServer


def log_of(bus: Bus) -> MailboxLog:
    async def nobody_else(_writer: str) -> bool:
        return False

    async def publish(message: OutMessage) -> None:
        raise AssertionError(message)

    clock = SystemClock()
    return MailboxLog(
        bus.log,
        Copies(bus.key_value(bus.subjects.cursors), clock),
        DeadLetters(bus.dead, publish, subject=bus.subjects.dead(DeadReason.MESSAGE), where="box"),
        account="box",
        mailbox="INBOX",
        filter_subject=bus.subjects.mailbox_filter("box", "INBOX"),
        writer=WriterIdentity("one/1", nobody_else),
        alarm=lambda error: pytest.fail(str(error)),
        clock=clock,
    )


async def commit(bus: Bus, log: MailboxLog, uid: int) -> None:
    message = OutMessage(bus.subjects.event("box", "INBOX", "received"), b"", {"ce-id": f"e{uid}"})
    await log.commit([message], Cursor("src", 1, last=uid, line=0, writer="one/1"))


@pytest.mark.fault("D07")
async def test_a_mailbox_without_a_connection_notices_a_log_that_went_back(
    own_nats: NatsServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.publish.LOOK_AT_REST_S", 0.05)
    async with bus_at(own_nats.url, prefix) as bus:
        log = log_of(bus)
        await log.resume(contest=True)
        await commit(bus, log, 1)
        await own_nats.stop()
        stream = next((own_nats.folder / "store").glob(f"jetstream/**/streams/{prefix.upper()}_IN"))
        snapshot = own_nats.folder / "snapshot"
        shutil.copytree(stream, snapshot)
        await own_nats.start()
        await until(lambda: bus.connected)
        await commit(bus, log, 2)
        resting = asyncio.create_task(log.looking(asyncio.sleep(60)))
        await own_nats.stop()
        shutil.rmtree(stream)
        shutil.copytree(snapshot, stream)
        await own_nats.start()
        with pytest.raises(Transient, match="not as it was left"):
            await asyncio.wait_for(resting, 30)
        position = await log.resume(contest=True)
        assert (position.why, position.cursor and position.cursor.last) == (Why.ROLLED_BACK, 1)


async def test_rest_ends_when_it_is_over(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ingest.publish.LOOK_AT_REST_S", 0.001)
    log = log_of(bus)
    await log.resume(contest=True)
    await commit(bus, log, 1)
    await log.looking(asyncio.sleep(0.02))
    await commit(bus, log, 2)


@pytest.mark.fault("B07")
async def test_of_two_ways_that_count_on_from_one_place_alike_the_refused_one_goes_on_anew(bus: Bus) -> None:
    cursor = Cursor("src", 1, last=1, line=0, writer="one/1")
    stand_in, returned = log_of(bus), log_of(bus)
    await stand_in.resume(contest=True)
    await returned.resume(contest=True)

    def event(kind: str) -> list[OutMessage]:
        return [OutMessage(bus.subjects.event("box", "INBOX", kind), b"", {"ce-id": kind})]

    await stand_in.commit(event("received"), cursor)
    with pytest.raises(Transient, match="not as it was left"):
        await returned.commit(event("changed"), cursor)
    await returned.resume(contest=True)
    await returned.commit(event("changed"), replace(cursor, events=2))


async def test_a_head_start_whose_commit_is_not_sent_keeps_no_place(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bus.batch.STAGED_LIMIT", 1)
    log, other = log_of(bus), log_of(bus)
    await log.resume(contest=True)
    cursor = Cursor("src", 1, last=20, line=0, writer="one/1")
    batch = [OutMessage(bus.subjects.event("box", "INBOX", "received"), b"", {"ce-id": f"e{n}"}) for n in range(20)]
    await log.stage(batch)
    with pytest.raises(MessageTooLarge):
        await log.commit(batch, replace(cursor, box="x" * bus.max_payload))
    await log.stage(batch)
    # Read anew before it is sent, the log is another's.
    monkeypatch.setattr("service.ingest.publish.FENCE_LIMIT_S", -1.0)
    await other.resume(contest=True)
    await commit(bus, other, 1)
    with pytest.raises(Transient, match="not as it was left"):
        await log.commit(batch, cursor)
    staged = await bus.log.stage(batch)
    assert staged is not None
    staged.close()


@pytest.mark.fault("D04")
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("word", [b"", b"seen, thank you", b"[]", b'{"error": "none"}', b"{}"])
async def test_what_others_who_hear_of_events_answer_says_nothing(bus: Bus, count: int, word: bytes) -> None:
    async def answer(event: Msg) -> None:
        if event.reply:
            await event.respond(word)

    subject = bus.subjects.event("box", "INBOX", "received")
    hears = await bus.nc.subscribe(subject, cb=answer)
    await bus.nc.flush()
    log = log_of(bus)
    await log.resume(contest=True)
    for first in range(0, 5 * count, count):
        events = [OutMessage(subject, b"%d" % n, {"ce-id": f"e{n}"}) for n in range(first, first + count)]
        await log.commit(events, Cursor("src", 1, last=first + count, line=0, writer="one/1"))
    await hears.unsubscribe()
    assert await payloads(bus, subject) == [b"%d" % n for n in range(5 * count)]
