"""The budget of bytes: in turn, never more than there is, and a part of it for what may be slow."""

import asyncio
import random
from contextlib import suppress

import pytest

from service.budget import Budget, Share


async def waits(task: asyncio.Task[int]) -> bool:
    """Whether it still does once everybody had a turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


@pytest.mark.fault("F06")
async def test_a_share_leaves_the_rest_of_the_whole_to_others_and_one_too_large_goes_alone() -> None:
    whole = Budget(1000)
    share = Share(whole, 512)
    first = await share.take(300)
    async with asyncio.TaskGroup() as group:
        second = group.create_task(share.take(300))
        assert await waits(second)
        # The large one that waits is in nobody's way who is small, nor in the way of what is read.
        small, read = share.take_now(16), whole.take_now(600)
        assert (small, read) == (16, 600)
        share.give(first)
        whole.give(600)
    share.give(second.result())
    share.give(16)
    alone = await share.take(5000)
    assert alone == 1000
    assert whole.take_now(1) is None
    share.give(alone)
    assert whole.take_now(1000) == 1000


async def test_who_is_cancelled_while_waiting_for_the_whole_gives_its_share_back() -> None:
    whole = Budget(100)
    share = Share(whole, 64)
    taken = await whole.take(90)
    waiting = asyncio.create_task(share.take(40))
    assert await waits(waiting)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    whole.give(taken)
    assert share.take_now(48) == 48


@pytest.mark.fault("F06")
async def test_readers_and_senders_of_any_sizes_all_come_to_their_end_within_the_budget() -> None:
    chance = random.Random(4)
    whole = Budget(1000)
    share = Share(whole, 500)
    used = 0

    async def work(part: Budget | Share, size: int) -> None:
        nonlocal used
        if chance.random() < 0.2:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    part.give(await part.take(size))
        taken = await part.take(size)
        used += taken
        assert used <= 1000
        await asyncio.sleep(0)
        used -= taken
        part.give(taken)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for n in range(300):
            group.create_task(work(share if n % 2 else whole, chance.choice((1, 10, 100, 400, 900, 5000))))
    assert whole.take_now(1000) == 1000
