"""A batch that has a head start: at the server but for its last message, which carries the fence. Real server."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.bus import Bus, FenceRefused
from service.bus.batch import GROUP_BYTES, STAGED_LIMIT
from tests.bus.conftest import mailbox_filter, messages, opened, payloads
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way


async def test_what_is_staged_is_nothing_until_its_last_message_comes(bus: Bus) -> None:
    subject = mailbox_filter(bus)
    batch = messages(bus, 5)
    staged = await bus.log.stage(batch)
    assert staged is not None
    assert await bus.log.tail(subject) is None
    seq = await bus.log.commit(batch, filter_subject=subject, fence=0, staged=staged)
    tail = await bus.log.tail(subject)
    assert tail is not None
    assert tail.seq == seq
    assert await payloads(bus, subject) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.fault("D02", "D03")
async def test_a_fence_that_moved_while_it_was_staged_refuses_all_of_it(bus: Bus) -> None:
    subject = mailbox_filter(bus)
    batch = messages(bus, 5)
    staged = await bus.log.stage(batch)
    await bus.log.commit(messages(bus, 3, first=10), filter_subject=subject, fence=0)
    with pytest.raises(FenceRefused):
        await bus.log.commit(batch, filter_subject=subject, fence=0, staged=staged)
    assert await payloads(bus, subject) == [b"10", b"11", b"12"]


async def test_one_is_staged_while_another_lands_and_follows_it(bus: Bus) -> None:
    subject = mailbox_filter(bus)
    fence = 0
    staged = None
    for first in range(0, 100, 20):
        batch, following = messages(bus, 20, first=first), messages(bus, 20, first=first + 20)
        async with asyncio.TaskGroup() as group:
            ahead = group.create_task(bus.log.stage(following))
            fence = await bus.log.commit(batch, filter_subject=subject, fence=fence, staged=staged)
        staged = ahead.result()
    assert staged is not None
    staged.close()
    assert await payloads(bus, subject) == [b"%d" % number for number in range(100)]


@pytest.mark.fault("D02")
async def test_of_two_racing_writers_with_head_starts_one_lands_each_time(bus: Bus) -> None:
    subject = mailbox_filter(bus)
    landed: list[int] = []

    async def write(first: int) -> None:
        for turn in range(10):
            tail = await bus.log.tail(subject)
            batch = messages(bus, 20, first=first + turn * 20)
            staged = await bus.log.stage(batch)
            try:
                fence = tail.seq if tail else 0
                await bus.log.commit(batch, filter_subject=subject, fence=fence, staged=staged)
                landed.append(first + turn * 20)
            except FenceRefused:
                continue

    async with asyncio.TaskGroup() as group:
        for first in (0, 10_000):
            group.create_task(write(first))
    assert landed
    assert await payloads(bus, subject) == [b"%d" % (first + n) for first in landed for n in range(20)]


@pytest.mark.fault("D05")
async def test_no_more_are_staged_than_leave_room_for_commits(bus: Bus) -> None:
    staged = [await bus.log.stage(messages(bus, 2, mailbox=f"m{n}")) for n in range(STAGED_LIMIT + 1)]
    assert [one is not None for one in staged] == [True] * STAGED_LIMIT + [False]
    for one in staged:
        if one is not None:
            one.close()
            one.close()
    assert await bus.log.stage(messages(bus, 2)) is not None


async def test_what_is_too_large_gets_no_head_start(bus: Bus) -> None:
    first, second = messages(bus, 2)
    assert await bus.log.stage([first, replace(second, payload=b"x" * 2 * 1024 * 1024)]) is None


async def test_of_a_large_batch_no_more_waits_to_be_written_than_others_may_wait_for(
    bus: Bus, nats_server: NatsServer, fault_proxy: Callable[[str, int], Awaitable[FaultProxy]]
) -> None:
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    subject = mailbox_filter(bus)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        batch = [replace(one, payload=one.payload.rjust(1_000_000)) for one in messages(bus, 24)]
        assert await behind.log.tail(subject) is None
        proxy.stall(Way.TO_SERVER)
        staging, most = asyncio.create_task(behind.log.stage(batch)), 0
        transport = behind.nc._transport._io_writer.transport
        for _ in range(50):
            await asyncio.sleep(0.005)
            most = max(most, behind.nc.pending_data_size + transport.get_write_buffer_size())
        proxy.heal()
        staged = await staging
        assert staged is not None
        await behind.log.commit(batch, filter_subject=subject, fence=0, staged=staged)
    assert 0 < most < 2 * GROUP_BYTES
    assert [int(payload) for payload in await payloads(bus, subject)] == list(range(24))
