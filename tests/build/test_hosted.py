"""An account as a whole: what its parts do not contain is its own trouble, and it is put together anew."""

import asyncio
from collections import deque
from typing import Any, cast

import pytest

from service.build import Hosted
from service.build.shared import Shared, Work
from service.commands import Account
from service.contract import AccountState, Subjects
from service.errors import Permanent
from service.fleet import AccountReports, Pace, Part
from service.fleet.report import SENDER
from service.settings import AccountSettings, Settings
from tests.servers.clock import FakeClock

ACCOUNT = cast(AccountSettings, type("A", (), {"id": "a"})())


class Parts(Shared):
    """What an account needs of what all share, and nothing else."""

    def __init__(self, reports: AccountReports, clock: FakeClock) -> None:
        for name, value in {"reports": reports, "clock": clock, "pace": Pace()}.items():
            object.__setattr__(self, name, value)

        object.__setattr__(self, "forgotten", [])

    forgotten: list[str]

    def forget(self, account: str) -> None:
        """Its connections are closed."""
        self.forgotten.append(account)


async def nowhere(_: object) -> None:
    """Nothing is published."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reports(clock: FakeClock) -> AccountReports:
    return AccountReports(Subjects("mail"), nowhere, writer="one/1", clock=clock)


@pytest.mark.parametrize(
    ("error", "pause_s", "said"),
    [(ValueError("a bug"), 60.0, "ValueError"), (Permanent("no file", where="ca"), 330.0, "no file")],
)
@pytest.mark.parametrize("when", ["put together", "running"])
async def test_what_no_part_contains_degrades_the_account_and_begins_it_anew(
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    reports: AccountReports,
    error: Exception,
    pause_s: float,
    said: str,
    when: str,
) -> None:
    tries = deque([True, False])
    neighbours = list[str]()

    def work(_settings: Settings, account: AccountSettings, _shared: Shared) -> list[Work]:
        breaks = tries.popleft()
        if breaks and when == "put together":
            raise error

        async def beside() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                neighbours.append("ended")

        async def run() -> None:
            await asyncio.sleep(0)
            if breaks:
                raise error
            await asyncio.Event().wait()

        reports.add(account.id, [SENDER])
        return [Work(account.id, part, what, [part]) for part, what in ((SENDER, run), (Part(SENDER.kind), beside))]

    monkeypatch.setattr("service.build.hosted.account_work", work)
    commands = Account("a", "a@example.com", None, None)
    monkeypatch.setattr("service.build.hosted.command_account", lambda *_: commands)
    hosted = Hosted(cast(Settings, None), Parts(reports, clock))
    task = asyncio.create_task(cast(Any, hosted.kind().run(ACCOUNT)))
    await clock.settle()
    assert reports.accounts["a"].state is AccountState.DEGRADED
    assert said in reports.accounts["a"].last_error
    assert (hosted.work, dict(hosted.commands)) == ([], {})
    assert neighbours == ([] if when == "put together" else ["ended"])
    await clock.advance(pause_s)
    assert (len(hosted.work), dict(hosted.commands)) == (2, {"a": commands})
    assert reports.accounts["a"].parts == {SENDER: AccountState.DISCONNECTED}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dict(hosted.commands) == {}


async def test_its_commands_have_time_to_end_before_its_connections_are_closed(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, reports: AccountReports
) -> None:
    def work(_settings: Settings, account: AccountSettings, _shared: Shared) -> list[Work]:
        reports.add(account.id, [SENDER])
        return [Work(account.id, SENDER, asyncio.Event().wait, [SENDER])]  # type: ignore[arg-type]

    commands, answered = Account("a", "a@example.com", None, None), asyncio.Event()

    async def command() -> None:
        async with commands.in_hand.within(60.0):
            await answered.wait()

    monkeypatch.setattr("service.build.hosted.account_work", work)
    monkeypatch.setattr("service.build.hosted.command_account", lambda *_: commands)
    parts = Parts(reports, clock)
    hosted = Hosted(cast(Settings, None), parts)
    task = asyncio.create_task(cast(Any, hosted.kind().run(ACCOUNT)))
    await clock.settle()
    under_way = asyncio.create_task(command())
    await clock.settle()
    task.cancel()
    await clock.settle()
    # None begins any more; the one that has begun has its connection.
    assert (dict(hosted.commands), parts.forgotten, task.done()) == ({}, [], False)
    answered.set()
    await under_way
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts.forgotten == ["a"]
