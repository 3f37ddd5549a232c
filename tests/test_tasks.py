"""Cancellations are neither lost nor left behind."""

import asyncio

import pytest

from service.tasks import TaskGroup, cancellable, cut_short


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


async def test_a_further_cancellation_reaches_what_a_group_still_waits_for() -> None:
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("cut short")
            raise

    async def nested() -> None:
        async with TaskGroup() as outer:
            async with TaskGroup() as inner:
                inner.create_task(stubborn())
            outer.create_task(asyncio.sleep(0))

    task = asyncio.create_task(nested())
    await asyncio.sleep(0)
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=0.05)
    assert pending
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert ended == ["cut short"]


class CleaningUp:
    """A child that takes its time to end; `cancelled`: how often it was."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.may_end = asyncio.Event()

    async def run(self) -> None:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


@pytest.mark.parametrize("block_goes_on", [False, True])
@pytest.mark.parametrize("ended", [False, True])
async def test_by_the_failure_of_a_child_the_others_are_cancelled_once_and_again_by_somebody_else_alone(
    block_goes_on: bool, ended: bool
) -> None:
    child = CleaningUp()

    async def fail() -> None:
        async with TaskGroup() as group:
            group.create_task(child.run())
            group.create_task(fail_after(0))
            if block_goes_on:
                await asyncio.sleep(60)

    task = asyncio.create_task(fail())
    while not child.cancelled:  # noqa: ASYNC110 what is cancelled rings no bell
        await asyncio.sleep(0)
    if ended:
        task.cancel()  # the group has not heard of the failure yet
    for _ in range(10):
        await asyncio.sleep(0)
    assert child.cancelled == 1 + ended
    child.may_end.set()
    with pytest.raises(asyncio.CancelledError if ended else BaseExceptionGroup):
        await task


async def test_cut_short_ends_whatever_catches_a_few_cancellations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tasks.CANCEL_EVERY_S", 0.01)

    async def stages() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    tasks = [asyncio.create_task(stages()) for _ in range(3)]
    await asyncio.wait_for(cut_short(tasks), 5)
    assert all(task.done() for task in tasks)
