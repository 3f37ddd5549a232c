"""Consumers that retention overtakes are found; those that are merely idle are not."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from service.app import _watch_readers
from service.bus import Bus
from service.bus.readers import Overrun, Readers
from service.observe import metrics

if TYPE_CHECKING:
    from service.clock import Clock


async def fill(bus: Bus, mailbox: str, count: int) -> None:
    for _ in range(count):
        await bus.publish(bus.subjects.event("box", mailbox, "received"), b"{}")


@pytest.mark.fault("D17")
async def test_a_consumer_whose_events_were_removed_before_it_read_them_is_named(bus: Bus) -> None:
    readers = Readers(bus.nc, bus.subjects.stream_in)
    context = bus.nc.jetstream()
    subscription = await context.pull_subscribe(f"{bus.subjects.prefix}.in.>", durable="slow")
    await fill(bus, "INBOX", 10)
    for message in await subscription.fetch(3):
        await message.ack_sync()
    assert await readers.look() == []
    config = (await context.stream_info(bus.subjects.stream_in)).config
    await context.update_stream(config.evolve(max_msgs=2))
    assert await readers.look() == [Overrun("slow", 5)]
    assert await readers.look() == []


class Looks:
    """A clock whose sleep, between two looks, ends when it is told to."""

    def __init__(self) -> None:
        self._done, self._again = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def sleep(self, _: float) -> None:
        self._done.release()
        await self._again.acquire()

    async def done(self) -> None:
        await asyncio.wait_for(self._done.acquire(), 20)

    async def next(self) -> None:
        self._again.release()
        await self.done()


@pytest.mark.fault("D17")
async def test_what_a_consumer_lost_is_counted_and_logged_with_its_name(bus: Bus) -> None:
    context, looks = bus.nc.jetstream(), Looks()
    await fill(bus, "INBOX", 10)
    subscription = await context.pull_subscribe(f"{bus.subjects.prefix}.in.>", durable="slow")
    for message in await subscription.fetch(3):
        await message.ack_sync()
    lost = metrics.CONSUMER_OVERRUN._value.get()
    with capture_logs() as said:
        watching = asyncio.create_task(_watch_readers(bus, cast("Clock", looks)))
        try:
            await looks.done()
            config = (await context.stream_info(bus.subjects.stream_in)).config
            await context.update_stream(config.evolve(max_msgs=2))
            await looks.next()
            await looks.next()
        finally:
            watching.cancel()
    assert [(line["event"], line["log_level"], line["consumer"], line["lost"]) for line in said] == [
        ("consumer_overrun", "error", "slow", 5)
    ]
    assert metrics.CONSUMER_OVERRUN._value.get() == lost + 5


async def test_a_consumer_that_read_all_of_it_is_not_overrun(bus: Bus) -> None:
    readers = Readers(bus.nc, bus.subjects.stream_in)
    context = bus.nc.jetstream()
    subscription = await context.pull_subscribe(f"{bus.subjects.prefix}.in.box.rare.*", durable="rare")
    await fill(bus, "rare", 1)
    for message in await subscription.fetch(1):
        await message.ack_sync()
    assert await readers.look() == []
    await fill(bus, "INBOX", 10)
    config = (await context.stream_info(bus.subjects.stream_in)).config
    await context.update_stream(config.evolve(max_msgs=1))
    await fill(bus, "rare", 1)
    assert await readers.look() == []


async def test_a_purge_that_somebody_asked_for_is_no_overrun(bus: Bus) -> None:
    readers = Readers(bus.nc, bus.subjects.stream_in)
    context = bus.nc.jetstream()
    await context.pull_subscribe(f"{bus.subjects.prefix}.in.>", durable="slow")
    await fill(bus, "INBOX", 10)
    assert await readers.look() == []
    await context.purge_stream(bus.subjects.stream_in)
    assert await readers.look() == []
