"""One key a process: taken, renewed, doubled, expired. Real server, a clock of our own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from service.bus import Bus, KeyValue, NatsOptions, StreamOptions, open_bus
from service.errors import Permanent, Transient
from service.fleet import Presence
from tests.servers.clock import FakeClock
from tests.servers.nats import NatsServer

TTL_S = 1.0


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    options = NatsOptions(servers=(nats_server.url,), prefix=prefix)
    async with open_bus(options, StreamOptions(presence_ttl_s=TTL_S)) as bus:
        yield bus


@pytest.fixture
def keys(bus: Bus) -> KeyValue:
    return bus.key_value(bus.subjects.fleet)


def presence(
    keys: KeyValue,
    boot: str,
    *,
    instance: str = "mailbus-0",
    accounts: Sequence[str] = (),
    clock: FakeClock | None = None,
) -> Presence:
    return Presence(keys, instance=instance, boot=boot, accounts=accounts, ttl_s=TTL_S, clock=clock or FakeClock())


async def test_a_process_is_alive_from_take_to_leave(keys: KeyValue) -> None:
    one = presence(keys, "b1")
    assert one.writer == "mailbus-0/b1"
    assert not await one.is_alive(one.writer)
    await one.take()
    assert await one.is_alive(one.writer)
    assert not await one.is_alive("mailbus-0/b2")
    await one.renew()
    await one.leave()
    assert not await one.is_alive(one.writer)


async def test_a_killed_process_is_back_at_once_under_its_name(keys: KeyValue) -> None:
    killed, back = presence(keys, "b1"), presence(keys, "b2")
    await killed.take()
    await back.take()
    assert await back.is_alive("mailbus-0/b2")
    assert not await back.is_alive("mailbus-0/b1")


async def test_of_two_with_one_name_the_older_stops_and_leaves_the_key_alone(keys: KeyValue) -> None:
    older, newer = presence(keys, "b1"), presence(keys, "b2")
    await older.take()
    await newer.take()
    with pytest.raises(Permanent, match="another process runs as instance mailbus-0") as refused:
        await older.renew()
    assert "its own `instance`" in str(refused.value)
    await older.leave()
    assert await newer.is_alive("mailbus-0/b2")
    await newer.renew()


async def test_run_renews_four_times_in_a_lifetime_and_ends_on_a_double(keys: KeyValue) -> None:
    clock = FakeClock()
    older = presence(keys, "b1", clock=clock)
    await older.take()

    async def run_for(renewals: int) -> None:
        for _ in range(renewals):
            await clock.advance(TTL_S / 4)
            async with asyncio.timeout(5):
                while not clock._waiting and not running.done():  # noqa: ASYNC110 a real server answers in between
                    await asyncio.sleep(0.005)

    running = asyncio.ensure_future(older.run())
    await clock.settle()
    first = await keys.get("mailbus-0")
    await run_for(3)
    third = await keys.get("mailbus-0")
    assert first is not None
    assert third is not None
    assert third.revision > first.revision
    assert set(clock.slept) == {TTL_S / 4}
    await presence(keys, "b2").take()
    await run_for(1)
    with pytest.raises(Permanent):
        await running


async def test_a_key_that_is_not_renewed_expires_and_is_taken_again(keys: KeyValue) -> None:
    one = presence(keys, "b1")
    await one.take()
    async with asyncio.timeout(15):
        while await one.is_alive(one.writer):  # noqa: ASYNC110 the server's own time to live
            await asyncio.sleep(0.05)
    await one.renew()
    assert await one.is_alive(one.writer)


async def test_an_expiry_reaches_a_watcher(bus: Bus, keys: KeyValue) -> None:
    store = await bus.nc.jetstream().key_value(bus.subjects.fleet)
    await presence(keys, "b1").take()
    watcher: Any = await store.watch("mailbus-0")
    operations: list[str | None] = []
    async with asyncio.timeout(15):
        while "PURGE" not in operations:
            update = await watcher.updates(timeout=10)
            if update is not None:
                operations.append(update.operation)
    await watcher.stop()


async def test_nats_away_does_not_end_the_renewing(own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bus.asks.REQUEST_TIMEOUT_S", 0.3)
    async with open_bus(NatsOptions(servers=(own_nats.url,)), StreamOptions(presence_ttl_s=TTL_S)) as bus:
        clock = FakeClock()
        one = presence(bus.key_value(bus.subjects.fleet), "b1", clock=clock)
        await one.take()
        running = asyncio.ensure_future(one.run())
        await own_nats.kill()
        await clock.advance(TTL_S)
        with pytest.raises(Transient):
            await one.renew()
        assert not running.done()
        await own_nats.start()
        async with asyncio.timeout(15):
            await bus.wait_connected()
            while True:
                try:
                    await one.renew()
                    break
                except Transient:
                    continue
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await one.is_alive(one.writer)


async def test_processes_with_the_same_accounts_are_alike_and_a_third_with_others_is_not(keys: KeyValue) -> None:
    one, two = (
        presence(keys, "1", instance="one", accounts=["a", "b"]),
        presence(keys, "2", instance="two", accounts=["b", "a"]),
    )
    await one.take()
    await two.take()
    assert await one.all_alike()
    assert await two.all_alike()
    three = presence(keys, "3", instance="three", accounts=["a"])
    await three.take()
    assert not await one.all_alike()
    await three.leave()
    assert await one.all_alike()
