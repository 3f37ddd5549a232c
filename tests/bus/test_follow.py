"""A stream followed as a consumer follows it: from the first, or from now on, over a break. Real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.bus import Bus, Followed
from tests.bus.conftest import mailbox_filter, messages, until
from tests.servers.nats import NatsServer


async def take(following: AsyncIterator[Followed], count: int, limit_s: float = 15) -> list[Followed]:
    """So many messages, within a limit."""
    found: list[Followed] = []
    async with asyncio.timeout(limit_s):
        while len(found) < count:
            found.append(await anext(following))
    return found


async def test_the_whole_stream_then_what_comes(bus: Bus) -> None:
    fence = await bus.log.commit(messages(bus, 3), filter_subject=mailbox_filter(bus), fence=0)
    following = bus.follow(bus.subjects.stream_in, f"{bus.subjects.prefix}.in.>", after=0)
    found = await take(following, 3)
    assert [(one.seq, one.payload, one.headers["ce-id"]) for one in found] == [
        (n + 1, b"%d" % n, f"INBOX-{n}") for n in range(3)
    ]
    await bus.log.commit(messages(bus, 2, first=3), filter_subject=mailbox_filter(bus), fence=fence)
    assert [one.payload for one in await take(following, 2)] == [b"3", b"4"]
    await following.aclose()  # type: ignore[attr-defined]


@pytest.mark.fault("D22")
async def test_a_batch_comes_whole_and_in_order_to_who_waits_for_it(bus: Bus) -> None:
    following = bus.follow(bus.subjects.stream_in, f"{bus.subjects.prefix}.in.>", after=0)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(take(following, 900))
        group.create_task(bus.log.commit(messages(bus, 900), filter_subject=mailbox_filter(bus), fence=0))
    assert [one.payload for one in reading.result()] == [b"%d" % n for n in range(900)]
    await following.aclose()  # type: ignore[attr-defined]


async def test_a_server_that_was_killed_is_followed_again_without_a_gap(own_nats: NatsServer, own_bus: Bus) -> None:
    subject = mailbox_filter(own_bus)
    fence = await own_bus.log.commit(messages(own_bus, 2), filter_subject=subject, fence=0)
    following = own_bus.follow(own_bus.subjects.stream_in, "mail.in.>", after=0)
    await take(following, 2)
    await own_nats.restart()
    await until(lambda: not own_bus.connected)
    await until(lambda: own_bus.connected)
    await own_bus.log.commit(messages(own_bus, 2, first=2), filter_subject=subject, fence=fence)
    assert [one.payload for one in await take(following, 2, limit_s=60)] == [b"2", b"3"]
    await following.aclose()  # type: ignore[attr-defined]
