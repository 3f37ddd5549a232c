"""Accounts that let go: asked once, waited for as long as there is something to wait for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.fleet import Kind, Running
from service.turns import AT_ONCE
from tests.servers.clock import FakeClock
from tests.servers.mailbus import until
from tests.test_turns import TurnCount


class Account:
    """One that has something in hand when it is asked to end, until `done`; `asked` counts how often it was."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.asked = 0
        self.done = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.asked += 1
            try:
                await self.done.wait()
            except asyncio.CancelledError:
                self.asked += 1
                raise


@asynccontextmanager
async def running(
    accounts: dict[str, Account],
    answers: Callable[[], bool],
    run: Callable[[Account], Coroutine[Any, Any, None]] = Account.run,
) -> AsyncIterator[Running[Account]]:
    async def nats_answers(_: float) -> bool:
        return answers()

    def ended(id: str) -> None:
        accounts[id].ended = True

    made = Running(Kind(run=run, end=ended, host=lambda _: "host"), nats_answers, FakeClock())
    task = asyncio.create_task(made.run())
    made.take(accounts)
    await until(lambda: made.accounts.keys() == accounts.keys())
    yield made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fleet.running.NATS_ASKED_S", 0.01)


async def test_a_release_that_is_cut_off_leaves_its_accounts_to_the_next_one_and_asks_none_twice() -> None:
    accounts = {id: Account(id) for id in ("a", "b")}
    async with running(accounts, lambda: True) as one:
        release = asyncio.create_task(one.keep({"b": accounts["b"]}))
        await until(lambda: accounts["a"].asked == 1)
        release.cancel()
        await asyncio.wait([release])
        assert one.accounts.keys() == {"a", "b"}
        assert not accounts["a"].ended
        again = asyncio.create_task(one.release(["a"]))
        await asyncio.sleep(0.05)
        accounts["a"].done.set()
        await again
        assert one.accounts.keys() == {"b"}
        accounts["b"].done.set()
    assert [account.asked for account in accounts.values()] == [1, 1]
    assert all(account.ended for account in accounts.values())


@pytest.mark.fault("F03")
async def test_where_nats_has_said_nothing_for_long_what_is_in_hand_is_not_waited_for() -> None:
    account, asked = Account("a"), 0

    def silent() -> bool:
        nonlocal asked
        asked += 1
        return False

    async with running({"a": account}, silent) as one:
        await asyncio.wait_for(one.keep({}, silent_s=8.0), 10)
        assert (asked, account.asked, account.ended) == (1, 2, True)


async def test_of_many_that_end_at_once_a_turn_of_the_loop_has_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fleet.running.BEGUN_AT_ONCE", 100)
    accounts, turn, asked = {str(number): Account(str(number)) for number in range(50)}, TurnCount(), Counter[int]()
    for account in accounts.values():
        account.done.set()

    async def run(account: Account) -> None:
        try:
            await Account.run(account)
        finally:
            asked[turn.now] += 1

    async with running(accounts, lambda: True, run) as one:
        await asyncio.wait_for(one.keep({}), 10)
    turn.stop()
    assert asked.total() == 50
    assert max(asked.values()) <= AT_ONCE


async def test_where_nats_answers_after_all_there_is_time() -> None:
    account, asked = Account("a"), 0

    def back() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            account.done.set()
        return True

    async with running({"a": account}, back) as one:
        await asyncio.wait_for(one.keep({}, silent_s=8.0), 10)
        assert (account.asked, account.ended) == (1, True)
