"""What waits in the queues as `/metrics` tells it, on a real bus."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from service.bus import Bus
from tests.outbound.conftest import LIMIT_S, Post, sending
from tests.servers.smtp import ScriptedRelay


async def test_how_long_the_oldest_request_has_waited_is_told_while_one_does(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    def age() -> float:
        return REGISTRY.get_sample_value("mailbus_queue_age_seconds") or 0.0

    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r")
        await relay.received(1)
        assert age() > 0
        relay.script.hold.set()
        await post.empty()
    assert age() == 0


def queued() -> float:
    return REGISTRY.get_sample_value("mailbus_waiting", {"where": "queue"}) or 0.0


async def counted(count: float) -> None:
    async with asyncio.timeout(LIMIT_S):
        while queued() != count:  # noqa: ASYNC110 a gauge rings no bell
            await asyncio.sleep(0.01)


async def test_what_is_queued_is_counted_as_its_bell_rings(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    before = queued()
    relay.script.hold = asyncio.Event()
    looked = asyncio.Semaphore(0)
    async with sending(bus, relay, proved=looked.release):
        for _ in range(3):  # each queue has been found empty
            await looked.acquire()
        await post.request("r")
        await counted(before + 1)
        relay.script.hold.set()
    assert queued() == before


async def test_what_is_queued_is_counted_while_whoever_takes_it_waits(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.sender.LOOK_EVERY_S", 0.05)
    before = queued()
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        for n in range(60):  # more than are in hand at once
            await post.request(f"r{n}")
        await counted(before + 60)
        await post.request("last")
        await counted(before + 61)
        relay.script.hold.set()
        await counted(before)
