"""Consumers that retention overtakes are found; those that are merely idle are not."""

import pytest

from service.bus import Bus
from service.bus.readers import Overrun, Readers


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
