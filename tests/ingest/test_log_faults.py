"""What the log can do to a mailbox: forget, be purged, be made anew, go back in time, refuse, not answer."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from service.bus import Bus
from service.ingest.cursor import copy_key, load_copy
from service.observe import metrics
from tests.ingest.harness import Box, following
from tests.servers.bus import bus_at
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, Event, reading, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


def subjects_of(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events]


async def announced(imap_stub: ImapStub, bus: Bus, reader: BusReader, count: int, **changes: object) -> Box:
    """Run until so many events are there and everything is caught up; then stop."""
    box = Box(imap_stub.port, **changes)  # type: ignore[arg-type]
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
        await reader.wait_received(count)
    return box


async def fill(bus: Bus, prefix: str, count: int) -> None:
    """Other accounts' events."""
    for _ in range(count):
        await bus.publish(f"{prefix}.in.other.INBOX.received", b"{}")


@pytest.mark.fault("D06")
async def test_a_tail_that_retention_removed_is_replaced_by_its_copy(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    await announced(imap_stub, bus, reader, 2)
    await fill(bus, prefix, 10)
    await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN", subject=f"{prefix}.in.box.>")
    imap_stub.messages[3] = mail(3)
    await announced(imap_stub, bus, reader, 1)
    events = await reader.events()
    assert [event.kind for event in events if ".box." in event.subject] == ["received"]
    assert subjects_of([event for event in events if ".box." in event.subject]) == ["mail 3"]


@pytest.mark.fault("D06")
async def test_a_copy_is_never_written_backwards(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {1: mail(1)}
    await announced(imap_stub, bus, reader, 1)
    bucket = bus.key_value(bus.subjects.cursors)
    key = copy_key("box", "INBOX")
    old = await bucket.get(key)
    assert old is not None
    imap_stub.messages[2] = mail(2)
    box = await announced(imap_stub, bus, reader, 2)
    assert box.copies is not None
    copy = load_copy(old.value)
    assert copy is not None
    await box.copies.write(key, copy)
    now = await bucket.get(key)
    assert now is not None
    newer = load_copy(now.value)
    assert newer is not None
    assert newer.seq > copy.seq


@pytest.mark.fault("D07")
async def test_a_log_that_went_back_is_right_and_its_events_come_again_with_the_same_ids(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        await announced(imap_stub, bus, reader, 2)
    await own_nats.stop()
    store = own_nats.folder / "store"
    stream = next(store.glob(f"jetstream/**/streams/{prefix.upper()}_IN"))
    snapshot = own_nats.folder / "snapshot"
    shutil.copytree(stream, snapshot)
    await own_nats.start()
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        imap_stub.messages |= {n: mail(n) for n in (3, 4)}
        await announced(imap_stub, bus, reader, 4)
        before = {event.body["subject"]: event.headers["ce-id"] for event in await reader.received()}
    await own_nats.stop()
    shutil.rmtree(stream)
    shutil.copytree(snapshot, stream)
    await own_nats.start()
    rollbacks = metrics.LOG_ROLLBACK._value.get()
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        await fill(bus, prefix, 10)  # others publish past the copy's sequence first
        await announced(imap_stub, bus, reader, 4)
        events = [event for event in await reader.received() if ".box." in event.subject]
    assert subjects_of(events) == ["mail 1", "mail 2", "mail 3", "mail 4"]
    assert {event.body["subject"]: event.headers["ce-id"] for event in events} == before
    assert metrics.LOG_ROLLBACK._value.get() == rollbacks + 1


@asynccontextmanager
async def rolled_back_under(
    own_nats: NatsServer, prefix: str, imap_stub: ImapStub, box: Box
) -> AsyncIterator[dict[str, str]]:
    """Mails 1 to 4 are announced by a mailbus that runs on while NATS is restored from before 3 and 4.

    Gives subject → ce-id of what was announced, once NATS is back.
    """
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    async with bus_at(own_nats.url, prefix) as bus, following(bus, box):
        async with reading(own_nats.url, prefix) as reader:
            await reader.wait_received(2)
        await own_nats.stop()
        stream = next((own_nats.folder / "store").glob(f"jetstream/**/streams/{prefix.upper()}_IN"))
        snapshot = own_nats.folder / "snapshot"
        shutil.copytree(stream, snapshot)
        await own_nats.start()
        await until(lambda: bus.connected)
        for number in (3, 4):
            await imap_stub.deliver(number, mail(number))
        async with reading(own_nats.url, prefix) as reader:
            await reader.wait_received(4)
            ids = {event.body["subject"]: event.headers["ce-id"] for event in await reader.received()}
        await until(lambda: box.status.state == "watching")
        await own_nats.stop()
        shutil.rmtree(stream)
        shutil.copytree(snapshot, stream)
        await own_nats.start()
        await until(lambda: bus.connected)
        yield ids


@pytest.mark.fault("D07")
async def test_a_log_that_went_back_under_a_running_mailbus_loses_no_mail(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.publish.FENCE_LIMIT_S", 0.0)  # every fence is an old one
    rollbacks = metrics.LOG_ROLLBACK._value.get()
    box = Box(imap_stub.port)
    async with (
        rolled_back_under(own_nats, prefix, imap_stub, box) as ids,
        reading(own_nats.url, prefix) as reader,
    ):
        await imap_stub.deliver(5, mail(5))
        events = await reader.wait_received(5)
    assert subjects_of(events) == [f"mail {n}" for n in range(1, 6)]
    assert {event.body["subject"]: event.headers["ce-id"] for event in events[:4]} == ids
    assert metrics.LOG_ROLLBACK._value.get() == rollbacks + 1


@pytest.mark.fault("D07")
async def test_a_mailbox_without_new_mail_notices_a_log_that_went_back_once_nats_is_back(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str
) -> None:
    # It looks whenever it wakes: each time that IDLE is renewed, or the mailbox is polled.
    box = Box(imap_stub.port, idle_s=0.2)
    async with (
        rolled_back_under(own_nats, prefix, imap_stub, box) as ids,
        reading(own_nats.url, prefix) as reader,
    ):
        events = await reader.wait_received(4)
    assert {event.body["subject"]: event.headers["ce-id"] for event in events} == ids


@pytest.mark.fault("D06")
async def test_an_old_fence_over_a_purged_log_goes_on_without_a_break(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.publish.FENCE_LIMIT_S", 0.0)
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await reader.wait_received(2)
        await until(lambda: box.status.state == "watching")
        await fill(bus, prefix, 3)
        await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN", subject=f"{prefix}.in.box.>")
        await imap_stub.deliver(3, mail(3))
        await until(lambda: box.status.announced == 3)
        events = [event for event in await reader.received() if ".box." in event.subject]
    assert subjects_of(events) == ["mail 3"]
    assert box.states == []


@pytest.mark.fault("D08")
async def test_a_log_made_anew_begins_by_the_initial_rule(
    imap_stub: ImapStub, bus: Bus, nats_server: NatsServer, reader: BusReader, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    await announced(imap_stub, bus, reader, 0, initial="new")
    await reader.nc.jetstream().delete_stream(f"{prefix.upper()}_IN")
    async with bus_at(nats_server.url, prefix) as again:
        box = Box(imap_stub.port, initial="new")
        async with following(again, box):
            await until(lambda: box.status.state == "watching")
            await imap_stub.deliver(3, mail(3))
            events = await reader.wait_received(1)
    assert subjects_of(events) == ["mail 3"]


@pytest.mark.fault("D08")
async def test_a_purged_log_goes_on_from_the_copy(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    await announced(imap_stub, bus, reader, 2)
    await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN")
    imap_stub.messages[3] = mail(3)
    await announced(imap_stub, bus, reader, 1)
    assert subjects_of(await reader.received()) == ["mail 3"]


@pytest.mark.fault("D03", "D04")
async def test_a_commit_whose_answer_is_lost_is_settled_by_the_log(
    imap_stub: ImapStub,
    own_nats: NatsServer,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setattr("service.bus.errors.REQUEST_TIMEOUT_S", 0.5)
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    lost = asyncio.Event()

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"Nats-Batch-Commit" in chunk and not lost.is_set():
            proxy.swallow(Way.TO_CLIENT)
            lost.set()
        return chunk

    imap_stub.messages = {n: mail(n) for n in range(1, 6)}
    box = Box(imap_stub.port)
    async with reading(own_nats.url, prefix) as reader, bus_at(f"nats://127.0.0.1:{proxy.port}", prefix) as bus:
        proxy.watch = watch
        async with following(bus, box):
            await asyncio.wait_for(lost.wait(), 20)
            await reader.wait_received(5)
            await asyncio.sleep(0.6)
            proxy.watch = None
            proxy.heal()
            await until(lambda: box.status.state == "watching", limit_s=60)
            await imap_stub.deliver(6, mail(6))
            events = await reader.wait_received(6)
    assert subjects_of(events) == [f"mail {n}" for n in range(1, 7)]


@pytest.mark.fault("D21")
async def test_an_event_carries_no_message_id_of_nats(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {1: mail(1)}
    await announced(imap_stub, bus, reader, 1)
    assert not any("Nats-Msg-Id" in event.headers for event in await reader.events())


@pytest.mark.fault("D13")
async def test_while_nats_is_away_reading_stops_and_goes_on_when_it_is_back(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str
) -> None:
    imap_stub.messages = {1: mail(1)}
    box = Box(imap_stub.port)
    async with bus_at(own_nats.url, prefix) as bus, following(bus, box):
        await until(lambda: box.status.state == "watching")
        await own_nats.kill()
        for number in range(2, 300):
            imap_stub.messages[number] = mail(number)
        await imap_stub.deliver(300, mail(300))
        await until(lambda: bool(box.states))
        fetched = sum("BODY.PEEK[]" in line for line in imap_stub.commands)
        await asyncio.sleep(1)
        # One page is tried anew with each life at the most: nothing piles up.
        assert box.status.announced == 1
        assert fetched < 20
        await own_nats.start()
        async with reading(own_nats.url, prefix) as reader:
            events = await reader.wait_received(300)
    assert subjects_of(events) == [f"mail {n}" for n in range(1, 301)]


@pytest.mark.fault("D15")
async def test_a_full_log_stops_reading_and_says_so_until_there_is_room(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str
) -> None:
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        context = reader.nc.jetstream()
        name = f"{prefix.upper()}_IN"
        config = (await context.stream_info(name)).config
        full = config.evolve(max_msgs=3, discard="new")
        await context.update_stream(full)
        imap_stub.messages = {n: mail(n) for n in range(1, 11)}
        box = Box(imap_stub.port)
        async with following(bus, box):
            await until(lambda: bool(box.states))
            assert await reader.count(f"{prefix}.in.>") <= 3
            assert "maximum messages exceeded (10077)" in str(box.states[0][1])
            await context.update_stream(config)
            events = await reader.wait_received(10)
    assert subjects_of(events) == [f"mail {n}" for n in range(1, 11)]
