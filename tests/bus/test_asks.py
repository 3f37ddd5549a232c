"""Many messages under way, each with its own answer, over one subscription."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import pytest

from service.bus import Bus
from service.bus.connection import PENDING_LIMIT_BYTES
from service.bus.errors import ApiError
from service.bus.frames import FENCE, pub
from tests.bus.conftest import opened, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way


async def test_each_has_its_own_answer(bus: Bus) -> None:
    subject = bus.subjects.status("a", "sent")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(bus.nc.asks.store(subject, b"%d" % n, {})) for n in range(1_000)]
    seqs = [task.result() for task in asked]
    assert sorted(seqs) == list(range(min(seqs), min(seqs) + 1_000))
    assert bus.nc.asks.under_way == 0


async def test_a_refusal_is_the_answer_of_its_message_alone(bus: Bus) -> None:
    subject = bus.subjects.status("a", "sent")
    async with asyncio.TaskGroup() as group:
        good = group.create_task(bus.nc.asks.store(subject, b"1", {}))
        with pytest.raises(ApiError):
            await bus.nc.asks.store(subject, b"2", {FENCE: "123456"})
    assert good.result()


@pytest.mark.fault("D04")
async def test_a_subject_of_no_stream_raises_and_does_not_wait(bus: Bus) -> None:
    with pytest.raises(nats.errors.NoRespondersError):
        await bus.nc.asks.ask("no.stream.here", b"")


@pytest.mark.fault("D03", "D04")
async def test_answers_that_do_not_come_raise_in_time_and_late_ones_are_nobodys(
    bus: Bus,
    nats_server: NatsServer,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.bus.asks.REQUEST_TIMEOUT_S", 0.5)
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        asks, subject = behind.nc.asks, bus.subjects.status("a", "sent")
        before = await asks.store(subject, b"1", {})
        proxy.stall(Way.TO_CLIENT)
        with pytest.raises(nats.errors.TimeoutError):
            await asks.store(subject, b"2", {})
        monkeypatch.setattr("service.bus.asks.REQUEST_TIMEOUT_S", 10)
        proxy.heal()
        assert await asks.store(subject, b"3", {}) == before + 2
        assert asks.under_way == 0


async def test_who_is_cancelled_leaves_nothing_behind(bus: Bus) -> None:
    asking = asyncio.create_task(bus.nc.asks.store(bus.subjects.status("a", "sent"), b"1", {}))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert bus.nc.asks.under_way == 0


async def test_without_a_connection_nobody_waits(own_nats: NatsServer, own_bus: Bus) -> None:
    await own_bus.nc.asks.store(own_bus.subjects.status("a", "sent"), b"1", {})
    await own_nats.kill()
    await until(lambda: not own_bus.connected)
    with pytest.raises(nats.errors.Error):
        await own_bus.nc.asks.ask("x", b"")
    await own_nats.start()


async def test_what_a_listener_cannot_read_ends_nothing(bus: Bus) -> None:
    def broken(*_: bytes) -> None:
        raise ValueError("unreadable")

    inbox = bus.nc.new_inbox()
    await bus.nc.listen(inbox, broken)
    await bus.nc.publish(inbox, b"x")
    await bus.nc.flush()
    assert await bus.publish(bus.subjects.status("a", "sent"), b"1")


async def test_who_asks_waits_while_too_much_is_pending(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.nc, "_max_pending_size", 1)
    subject = bus.subjects.status("a", "sent")
    most = 0
    async with asyncio.TaskGroup() as group:
        for n in range(100):
            group.create_task(bus.nc.asks.store(subject, b"%d" % n, {}))
            await asyncio.sleep(0)
            most = max(most, bus.nc.pending_data_size)
    assert most < 10 * len(f"PUB {subject} reply 2 99")


async def test_who_waited_until_there_was_room_does_not_fill_it_all_at_once(
    bus: Bus, nats_server: NatsServer, fault_proxy: Callable[[str, int], Awaitable[FaultProxy]]
) -> None:
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        nc, subject = behind.nc, bus.subjects.status("a", "sent")
        await nc.asks.store(subject, b"1", {})
        frames, most = [[pub("nobody.hears", b"x" * 1_000_000)] * 4], 0
        proxy.stall(Way.TO_SERVER)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(nc.asks.ask(subject, b"2", behind=frames))
            await until(lambda: nc.asks.under_way > 0 and not nc.pending_data_size)
            proxy.heal()
            while nc.asks.under_way or nc.pending_data_size:
                most = max(most, nc.pending_data_size)
                await asyncio.sleep(0)
        assert most < PENDING_LIMIT_BYTES + 5_000_000
