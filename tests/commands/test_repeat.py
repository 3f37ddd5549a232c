"""A command under an id, asked at two processes: its account moved while the first one was at it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.bus import Bus, KeyValue, ServiceError
from service.clock import Clock, SystemClock
from service.commands import Answered, Keeper, begun
from service.errors import Transient
from tests.servers.clock import FakeClock

COMMAND = "copy x"


@pytest.fixture
def records(bus: Bus) -> KeyValue:
    return bus.key_value(bus.subjects.sends)


def process(records: KeyValue, writer: str, *, alive: bool, clock: Clock | None = None) -> Answered:
    async def lives(_: str) -> bool:
        return alive

    return Answered(Keeper(records, writer, lives, clock or SystemClock()))


def copying(at: Answered, account: str, until: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[bytes]]:
    """What a copy does; `until`: while the mail server is at it."""

    async def work() -> bytes:
        noted = at.begun(account, COMMAND)
        assert noted is not None
        await noted.earlier("INBOX", into=7, first=12)
        await until()
        return b"{}"

    return work


async def never() -> None:
    raise AssertionError("it is copied a second time")


@pytest.mark.fault("G10")
async def test_what_another_process_is_at_is_not_done_beside_it(records: KeyValue, prefix: str) -> None:
    one, two = process(records, "one/1", alive=True), process(records, "two/1", alive=True)
    noted, go = asyncio.Event(), asyncio.Event()

    async def until() -> None:
        noted.set()
        await go.wait()

    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.once(prefix, COMMAND, b"x", copying(one, prefix, until)))
        await noted.wait()
        with pytest.raises(ServiceError) as refused:
            await two.once(prefix, COMMAND, b"x", copying(two, prefix, never))
        assert refused.value.code == 503
        go.set()
        assert await first == b"{}"
    assert await two.once(prefix, COMMAND, b"x", copying(two, prefix, never)) == b"{}"


@pytest.mark.parametrize("why", ["it is gone", "its time is over"])
async def test_what_a_process_left_is_taken_over_and_it_writes_no_more(
    records: KeyValue, prefix: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    over = why == "its time is over"
    if over:
        monkeypatch.setattr(begun, "COMMAND_LIMIT_S", 0.0)
    one, two = process(records, "one/1", alive=True), process(records, "two/1", alive=over)
    done: list[bytes] = []

    async def taken() -> None:
        done.append(await two.once(prefix, COMMAND, b"x", copying(two, prefix, lambda: asyncio.sleep(0))))

    with pytest.raises(Transient):
        await one.once(prefix, COMMAND, b"x", copying(one, prefix, taken))
    assert done == [b"{}"]


async def test_what_failed_may_be_tried_by_any_process_at_once(records: KeyValue, prefix: str) -> None:
    one, two = process(records, "one/1", alive=True), process(records, "two/1", alive=True)

    async def lost() -> None:
        raise Transient("the connection was lost")

    with pytest.raises(Transient):
        await one.once(prefix, COMMAND, b"x", copying(one, prefix, lost))
    assert await two.once(prefix, COMMAND, b"x", copying(two, prefix, lambda: asyncio.sleep(0))) == b"{}"


async def test_who_begins_again_after_a_try_that_was_given_up_has_its_whole_time(
    records: KeyValue, prefix: str
) -> None:
    clock = FakeClock()
    one, two = (process(records, writer, alive=True, clock=clock) for writer in ("one/1", "two/1"))
    noted = asyncio.Event()

    async def silent() -> None:
        noted.set()
        await asyncio.Event().wait()

    for _ in range(2):
        noted.clear()
        trying = asyncio.create_task(one.once(prefix, COMMAND, b"x", copying(one, prefix, silent)))
        await noted.wait()
        await clock.advance(begun.COMMAND_LIMIT_S - 1)
        with pytest.raises(ServiceError) as refused:
            await two.once(prefix, COMMAND, b"x", copying(two, prefix, never))
        assert refused.value.code == 503
        trying.cancel()
        await asyncio.wait([trying])
