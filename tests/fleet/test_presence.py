"""One key a process: taken, renewed, doubled, expired. Real server, a clock of our own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from service.bus import Bus, Entry, KeyValue, NatsOptions, StreamOptions, open_bus
from service.clock import Clock, SystemClock
from service.errors import Permanent, Transient
from service.fleet import Presence
from service.fleet.members import Member
from service.fleet.presence import DEAF_S, member_of
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
    keys: KeyValue, boot: str, *, instance: str = "mailbus-0", capacity: float = 1.0, clock: Clock | None = None
) -> Presence:
    return Presence(keys, instance=instance, boot=boot, capacity=capacity, ttl_s=TTL_S, clock=clock or FakeClock())


async def said(keys: KeyValue, instance: str = "mailbus-0") -> Member:
    entry = await keys.get(instance)
    assert entry is not None
    return member_of(instance, entry.value, entry.revision)


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


async def test_who_leaves_takes_the_name_from_nobody_who_took_it_meanwhile(
    keys: KeyValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = presence(keys, "b1"), presence(keys, "b2")
    await older.take()
    there = await keys.get("mailbus-0")

    async def before(_: str) -> Entry | None:
        return there

    await newer.take()
    with monkeypatch.context() as patched:
        patched.setattr(keys, "get", before)
        await older.leave()
    assert await newer.is_alive(newer.writer)


async def test_run_renews_in_time_and_ends_on_a_double(keys: KeyValue) -> None:
    older = presence(keys, "b1", clock=SystemClock())
    await older.take()
    running = asyncio.ensure_future(older.run())
    await asyncio.sleep(2 * TTL_S)
    assert await older.is_alive(older.writer)
    assert older.leased_s() > 0
    await presence(keys, "b2").take()
    with pytest.raises(Permanent):
        await asyncio.wait_for(running, 10)


async def test_what_is_said_at_once_does_not_wait_for_the_next_renewal(keys: KeyValue) -> None:
    one = presence(keys, "b1", clock=SystemClock())
    await one.take()
    running = asyncio.ensure_future(one.run())
    one.say(settled=17, accounts="digest", now=True)
    async with asyncio.timeout(10):
        while (await said(keys)).settled != 17:  # noqa: ASYNC110 a real server answers in between
            await asyncio.sleep(0.005)
    assert (await said(keys)).accounts == "digest"
    one.say(settled=3)
    assert one.said_settled == 17  # never less than before
    running.cancel()


async def test_the_lease_ends_before_the_key_does_by_the_processes_own_clock(keys: KeyValue) -> None:
    clock = FakeClock()
    one = presence(keys, "b1", clock=clock)
    assert one.leased_s() == 0
    await one.take()
    assert 0 < one.leased_s() < TTL_S
    await clock.advance(TTL_S)
    assert one.leased_s() == 0
    await one.renew()
    assert one.leased_s() > 0


async def test_who_renews_its_key_and_hears_nothing_of_it_for_long_is_deaf_and_an_outage_counts_once(
    keys: KeyValue,
) -> None:
    clock = FakeClock()
    one = presence(keys, "b1", clock=clock)
    await one.take()
    first = one.since
    await clock.advance(1000 * TTL_S)  # NATS was away
    await one.renew()
    assert not one.deaf
    renewals = 1
    while not one.deaf:
        await clock.advance(TTL_S / 8)
        await one.renew()
        renewals += 1
    assert renewals == round(8 * DEAF_S / TTL_S)
    one.heard(first - 1)
    assert one.deaf
    one.heard(first)
    assert not one.deaf


async def test_who_comes_in_anothers_place_has_its_since_unless_it_takes_more(keys: KeyValue) -> None:
    killed, back, larger = presence(keys, "b1"), presence(keys, "b2"), presence(keys, "b3", capacity=2.0)
    await killed.take()
    came = (await said(keys)).since
    assert killed.since == came
    await back.take()
    await back.renew()
    assert (back.since, (await said(keys)).since) == (came, came)
    await larger.take()
    assert larger.since > came
    assert (await said(keys)).since == larger.since
    assert (await said(keys)).capacity == 2.0


async def test_a_value_that_cannot_be_read_is_somebody_of_the_usual_capacity(keys: KeyValue) -> None:
    for value in (b"no json", b'{"boot": "\xff"}', b'{"other": ' + b"[" * 100_000):
        assert member_of("one", value, 7) == Member("one", "", 1.0, 7, 0)
    assert member_of("one", b'{"boot": "b", "capacity": -1}', 7).capacity == 1.0


async def test_a_key_that_is_not_renewed_expires_and_is_taken_again(keys: KeyValue) -> None:
    one = presence(keys, "b1")
    await one.take()
    came = one.since
    async with asyncio.timeout(15):
        while await one.is_alive(one.writer):  # noqa: ASYNC110 the server's own time to live
            await asyncio.sleep(0.05)
    await one.renew()
    assert await one.is_alive(one.writer)
    assert one.since > came  # it came anew


async def test_a_watcher_hears_all_keys_and_then_each_change_and_expiry(keys: KeyValue) -> None:
    await presence(keys, "b1", instance="one").take()
    await presence(keys, "b2", instance="two").take()
    async with aclosing(keys.watch()) as watch:
        assert [change.key for change in await anext(watch)] == ["one", "two"]
        three = presence(keys, "b3", instance="three")
        await three.take()
        (came,) = await anext(watch)
        assert (came.key, came.seq) == ("three", three.since)
        await three.leave()
        (left,) = await anext(watch)
        assert (left.key, left.value) == ("three", None)
        async with asyncio.timeout(15):
            gone: dict[str, bytes | None] = {}
            while not {"one", "two"} <= gone.keys():
                gone |= {change.key: change.value for change in await anext(watch)}
        assert set(gone.values()) == {None}


async def test_a_watch_that_may_have_missed_something_ends(own_nats: NatsServer) -> None:
    async with open_bus(NatsOptions(servers=(own_nats.url,)), StreamOptions(presence_ttl_s=TTL_S)) as bus:
        keys = bus.key_value(bus.subjects.fleet)
        async with aclosing(keys.watch()) as watch:
            assert await anext(watch) == []
            await own_nats.restart()
            with pytest.raises(Transient):
                async with asyncio.timeout(20):
                    await anext(watch)


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
