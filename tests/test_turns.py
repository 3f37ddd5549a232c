"""What comes for thousands at once is done a few in a turn of the event loop, and others have theirs between."""

import asyncio
from collections import Counter

import pytest

from service.turns import AT_ONCE, YIELD_AFTER_S, Breather, Turns
from tests.servers.clock import FakeClock


class TurnCount:
    """How many turns the event loop has had."""

    def __init__(self) -> None:
        self.now = 0
        self._again()

    def _again(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._again)

    def stop(self) -> None:
        self._handle.cancel()


@pytest.mark.fault("F07")
@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
async def test_a_turn_of_the_loop_has_no_more_than_a_few_of_them_and_all_have_theirs_in_order(together: bool) -> None:
    turns, turn, done = Turns(), TurnCount(), list[tuple[int, int]]()

    def come(number: int) -> None:
        turns.soon(lambda: done.append((turn.now, number)))

    for number in range(10 * AT_ONCE):
        if together:
            come(number)
        else:
            asyncio.get_running_loop().call_soon(come, number)
    async with asyncio.timeout(10):
        while len(done) < 10 * AT_ONCE:  # noqa: ASYNC110 turns are what is counted
            await asyncio.sleep(0)
    turn.stop()
    assert [number for _, number in done] == list(range(10 * AT_ONCE))
    assert max(Counter(now for now, _ in done).values()) <= AT_ONCE


async def test_one_that_raises_holds_up_no_other() -> None:
    turns, done, said = Turns(), list[int](), list[str]()
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: said.append(str(context["exception"])))

    def fail() -> None:
        raise ValueError("wrong")

    try:
        turns.soon(fail)
        turns.soon(lambda: done.append(1))
        async with asyncio.timeout(10):
            while not done:  # noqa: ASYNC110
                await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    assert said == ["wrong"]


async def test_long_work_lets_others_have_their_turn_whenever_it_has_gone_on_for_a_while() -> None:
    clock, turn = FakeClock(), TurnCount()
    breather, turns = Breather(clock), list[int]()
    for passed_s in (0.0, YIELD_AFTER_S, YIELD_AFTER_S / 2, 0.0, 2 * YIELD_AFTER_S):
        await clock.advance(passed_s)
        before = turn.now
        await breather.pause()
        turns.append(turn.now - before)
    turn.stop()
    assert turns == [0, 0, 1, 0, 1]
