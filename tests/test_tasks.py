"""Cancellations are neither lost nor left behind."""

import asyncio

import pytest

from service.tasks import TaskGroup, cancellable


async def fail_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError


async def test_a_child_that_fails_leaves_no_cancellation_behind() -> None:
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()

    async def fail() -> None:
        async with TaskGroup() as group:
            group.create_task(fail_after(0))
            group.create_task(asyncio.sleep(10))

    with pytest.raises(BaseExceptionGroup):
        await fail()
    assert task.cancelling() == before


async def test_a_cancellation_in_the_instant_of_a_childs_failure_is_not_lost() -> None:
    async def for_ever() -> None:
        while True:
            try:
                async with TaskGroup() as group:
                    group.create_task(fail_after(0.001))
                    group.create_task(asyncio.sleep(10))
            except* ValueError:
                pass

    for late_s in range(40):
        task = asyncio.create_task(for_ever())
        await asyncio.sleep(0.0008 + late_s * 0.00001)
        task.cancel()
        _, running = await asyncio.wait([task], timeout=5)
        assert not running


async def test_a_cancellation_in_the_instant_of_an_answer_is_not_lost() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ask() -> int:
        with cancellable():
            return await asyncio.wait_for(answer, 10)

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    answer.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
