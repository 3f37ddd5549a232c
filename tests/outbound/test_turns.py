"""Whoever waits for a domain is called once it has room, whatever others wait for and whatever is forgotten."""

import asyncio
from datetime import UTC, datetime

import pytest

from service.outbound import Limit
from service.outbound.hands import Place
from service.outbound.lanes import Lanes, Turn
from service.outbound.pace import Pace
from service.outbound.relays import Relays
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord
from service.outbound.turns import Turns
from service.smtp import Relay
from tests.outbound.conftest import deliveries, smtp_options
from tests.servers.clock import FakeClock
from tests.servers.smtp import ScriptedRelay

D, E = "a@d.example", "a@e.example"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ours(clock: FakeClock) -> Lanes:
    return Lanes("a", {"*": Limit(at_once=1)}, clock)


def under_way(ours: Lanes, who: str) -> Turn:
    turn = ours.take([who], waited=True)
    assert isinstance(turn, Turn)
    return turn


async def goes(ours: Lanes, who: str) -> None:
    ours.give_back(await ours.wait([who], 1.0), spent=True)


async def test_who_waits_for_memory_leaves_his_domains_room_to_the_next_one(
    ours: Lanes, clock: FakeClock, relay: ScriptedRelay
) -> None:
    pace, memory = Pace(0.0, clock), asyncio.Event()
    turns = Turns(ours, Relays([Relay(smtp_options(relay), clock)], "a", pace, clock), pace, clock)
    now = datetime(2026, 11, 24, tzinfo=UTC)
    later = clock.now().replace(year=2027)
    record = SendRecord("r", "", "", Phase.WAITING, 1, "m@x", now, later, pending={D: ""})
    place = Place(asyncio.Semaphore(1), deliveries())

    async def room() -> None:
        await memory.wait()

    turn = under_way(ours, D)
    async with asyncio.TaskGroup() as group:
        large = group.create_task(turns.take(record, place, room))
        await clock.settle()
        small = group.create_task(goes(ours, D))
        await clock.settle()
        ours.give_back(turn, spent=True)
        await clock.settle()
        assert small.done()
        assert not large.done()
        memory.set()
    assert isinstance(large.result(), Turn)
    assert clock.monotonic() == 0


async def test_who_goes_on_to_wait_for_another_domain_leaves_the_room_of_the_first_to_the_next_one(
    ours: Lanes, clock: FakeClock
) -> None:
    turns = {who: under_way(ours, who) for who in (D, E)}
    first, other = (D, E) if ours._full([D, E]) is ours._lane("d.example") else (E, D)
    async with asyncio.TaskGroup() as group:
        both = group.create_task(ours.wait_near([D, E], waited=False))
        await clock.settle()
        one = group.create_task(goes(ours, first))
        await clock.settle()
        ours.give_back(turns[first], spent=True)
        await clock.settle()
        assert one.done()
        assert not both.done()
        ours.give_back(turns[other], spent=True)
    assert clock.monotonic() == 0


@pytest.mark.parametrize("called", [False, True])
async def test_a_domain_that_somebody_waits_for_is_forgotten_behind_those_that_nobody_uses(
    ours: Lanes, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, called: bool
) -> None:
    monkeypatch.setattr("service.outbound.lanes.HEARD_LIMIT", 3)
    turn = under_way(ours, D)
    async with asyncio.TaskGroup() as group:
        group.create_task(goes(ours, D))
        await clock.settle()
        if called:
            ours.give_back(turn, spent=True)
        lane = ours._lane("d.example")
        for n in range(9):
            ours._lane(f"d{n}.example").promise(clock.monotonic(), waited=False)
        assert ours._lanes["d.example"] is lane
        if not called:
            ours.give_back(turn, spent=True)
    assert clock.monotonic() == 0
