"""Whoever waits for a domain is called once it has room, whatever others wait for and whatever is forgotten."""

import asyncio
from datetime import UTC, datetime

import pytest

from service.outbound import Limit
from service.outbound.lanes import Lanes, Turn
from service.outbound.pace import Pace
from service.outbound.places import NoTurn, Place
from service.outbound.relays import Relays
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord
from service.outbound.turns import Turns
from service.smtp import Relay
from tests.outbound.conftest import LIMIT_S, deliveries, smtp_options
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


def turns_of(ours: Lanes, clock: FakeClock, relay: ScriptedRelay) -> Turns:
    pace = Pace(0.0, clock)
    return Turns(ours, Relays([Relay(smtp_options(relay), clock)], "a", pace, clock), pace, clock)


def waits_for(who: str) -> SendRecord:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    later = now.replace(year=2027)
    return SendRecord("r", "", "", Phase.WAITING, 1, "m@x", now, later, pending={who: ""}, turn=True)


async def goes(ours: Lanes, who: str) -> None:
    ours.give_back(await ours.wait([who], 1.0), spent=True)


async def test_who_waits_for_memory_leaves_his_domains_room_to_the_next_one(
    ours: Lanes, clock: FakeClock, relay: ScriptedRelay
) -> None:
    memory, turn = asyncio.Event(), under_way(ours, D)
    place = Place(asyncio.Semaphore(1), deliveries())

    async def room() -> None:
        await memory.wait()

    async with asyncio.TaskGroup() as group:
        large = group.create_task(turns_of(ours, clock, relay).take(waits_for(D), place, room))
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
        both = group.create_task(ours.wait_near([D, E], waited=False, ending=asyncio.Event()))
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


async def test_who_came_back_for_a_slow_domains_turn_has_it_between_the_mails_of_a_mailing(
    ours: Lanes, clock: FakeClock
) -> None:
    went = list[str]()

    async def mail(turn: Turn, name: str) -> None:
        went.append(name)
        await clock.sleep(3.0)
        ours.give_back(turn, spent=True)

    async def mailing() -> None:
        await mail(await ours.wait([D], 1.0), "mailing")

    async def request() -> None:
        turn = ours.take([D], waited=False)
        while isinstance(turn, float):
            await clock.sleep(turn)
            if ours.is_near([D], waited=True):
                await ours.wait_near([D], waited=True, ending=asyncio.Event())
            turn = ours.take([D], waited=True)
        await mail(turn, "request")

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(mailing())
        await clock.advance(7.0)
        for _ in range(4):
            group.create_task(request())
        await clock.advance(60.0)
    assert went[:12].count("request") == 4


async def test_who_waits_for_a_domain_when_the_accounts_work_ends_is_the_queues_again(
    ours: Lanes, clock: FakeClock, relay: ScriptedRelay
) -> None:
    stop = asyncio.Event()
    place = Place(asyncio.Semaphore(1), deliveries(), stop)

    async def room() -> None:
        pass

    turn = under_way(ours, D)
    waiting = asyncio.create_task(turns_of(ours, clock, relay).take(waits_for(D), place, room))
    await clock.settle()
    assert not waiting.done()
    stop.set()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(NoTurn):
            await waiting
    ours.give_back(turn, spent=True)
    assert isinstance(ours.take([D], waited=True), Turn)
