"""Limits by the domain of recipients: kept, learnt, and in nobody else's way."""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from random import Random

import pytest
from structlog.testing import capture_logs

from service.bus import Bus
from service.outbound import Limit
from service.outbound.blame import ALIKE_LIMIT
from service.outbound.lanes import SOON_S, Lanes, Turn, _Lane
from service.outbound.pace import FIRST_PAUSE_S
from service.outbound.retry import Said, Verdict
from tests.outbound.conftest import LIMIT_S, Post, sending
from tests.servers.clock import FakeClock
from tests.servers.smtp import ScriptedRelay

SLOW = ["a@slow.example"]
TAKEN = Said(Verdict.ACCEPTED, "250 2.0.0 OK")
TOO_FAST = Said(Verdict.PUT_OFF, "450 4.7.1 too much mail", of_recipient=True)


def lanes(clock: FakeClock, **limits: Limit) -> Lanes:
    return Lanes("a", {name.replace("_", "."): limit for name, limit in limits.items()}, clock)


def goes(turn: Turn | float) -> bool:
    return isinstance(turn, Turn)


async def test_a_rate_is_kept_whoever_comes_and_whoever_waited() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(interval_s=2.0))
    assert goes(ours.take(SLOW, waited=False))
    first, second = (ours.take(SLOW, waited=False) for _ in range(2))
    assert (first, second) == (2.0, 4.0)
    assert goes(ours.take(["a@other.example"], waited=False))
    await clock.advance(2.0)
    # Who comes now stands behind those that wait.
    assert ours.take(SLOW, waited=False) == 4.0
    assert goes(ours.take(SLOW, waited=True))
    assert ours.take(SLOW, waited=True) == 2.0
    await clock.advance(2.0)
    assert goes(ours.take(SLOW, waited=True))


async def test_what_falls_due_within_a_second_goes_together_and_no_more() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(interval_s=0.25))
    gone = sum(goes(ours.take(SLOW, waited=True)) for _ in range(100))
    assert gone == 4
    await clock.advance(1.0)
    assert sum(goes(ours.take(SLOW, waited=True)) for _ in range(100)) == 4


def test_only_so_many_are_under_way_at_once() -> None:
    ours = lanes(FakeClock(), slow_example=Limit(at_once=2))
    first = ours.take(SLOW, waited=False)
    assert goes(ours.take(["b@slow.example", "c@other.example"], waited=False))
    assert not goes(ours.take(SLOW, waited=False))
    assert isinstance(first, Turn)
    ours.give_back(first, spent=True)
    assert goes(ours.take(SLOW, waited=True))


async def test_a_turn_that_is_given_back_is_at_once_his_who_waits_for_it_longest() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1))
    turn, went = ours.take(SLOW, waited=False), list[int]()

    async def wait(n: int) -> None:
        ours.give_back(await ours.wait(SLOW, ours.take(SLOW, waited=False)), spent=True)
        went.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(wait(n))
        await clock.settle()
        assert isinstance(turn, Turn)
        ours.give_back(turn, spent=True)
    assert went == [0, 1, 2]
    assert clock.monotonic() == 0


async def test_who_came_back_for_his_turn_and_who_is_in_hand_go_one_after_the_other() -> None:
    """A mailing in hand has eight mails to the domain at any time."""
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1))
    turn, went = ours.take(SLOW, waited=False), list[str]()

    async def mailing() -> None:
        for _ in range(5):
            ours.give_back(await ours.wait(SLOW, 1.0), spent=True)
            went.append("mailing")

    async def request() -> None:
        assert ours.is_near(SLOW, waited=True)
        await ours.wait_near(SLOW, waited=True, ending=asyncio.Event())
        turn = ours.take(SLOW, waited=True)
        assert isinstance(turn, Turn)
        went.append("request")
        ours.give_back(turn, spent=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(mailing())
        await clock.settle()
        for _ in range(3):
            group.create_task(request())
        await clock.settle()
        assert isinstance(turn, Turn)
        ours.give_back(turn, spent=True)
    assert went[:6].count("request") == 3


async def test_who_begins_to_wait_once_there_is_room_again_goes_at_once() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1))
    turn = ours.take(SLOW, waited=False)
    later = ours.take(SLOW, waited=False, within_s=0.0)
    assert isinstance(turn, Turn)
    ours.give_back(turn, spent=True)
    assert goes(await ours.wait(SLOW, later))


async def test_who_goes_on_waiting_for_another_domain_leaves_the_turn_to_the_next() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1), other_example=Limit(interval_s=3600.0))
    turn, other = ours.take(SLOW, waited=False), ["a@other.example"]
    assert goes(ours.take(other, waited=False))
    async with asyncio.TaskGroup() as group:
        both = group.create_task(ours.wait([*SLOW, *other], 3600.0))
        await clock.settle()
        one = group.create_task(ours.wait(SLOW, 1.0))
        await clock.settle()
        assert isinstance(turn, Turn)
        ours.give_back(turn, spent=True)
        await one
        both.cancel()
    assert clock.monotonic() == 0


async def test_a_domain_is_waited_for_in_hand_while_its_mails_are_quick_and_no_longer() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1))
    assert not ours.is_near(SLOW, waited=False)
    ours.take(SLOW, waited=False)
    assert ours.is_near(SLOW, waited=False)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ours.wait_near(SLOW, waited=False, ending=asyncio.Event()))
        await clock.advance(SOON_S)
        await waiting
    await clock.advance(SOON_S)
    assert not ours.is_near(SLOW, waited=False)


async def test_a_domain_whose_mails_take_their_time_is_not_waited_for_in_hand() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(at_once=1))
    turn = ours.take(SLOW, waited=False)
    await clock.advance(5.0)
    assert isinstance(turn, Turn)
    ours.give_back(turn, spent=True)
    ours.take(SLOW, waited=True)
    assert not ours.is_near(SLOW, waited=False)


def test_each_domain_that_is_not_named_has_a_limit_of_its_own() -> None:
    ours = Lanes("a", {"*": Limit(interval_s=60.0), "quick.example": Limit()}, FakeClock())
    assert goes(ours.take(["a@x.example"], waited=False))
    assert goes(ours.take(["a@Y.example"], waited=False))
    assert not goes(ours.take(["b@X.example"], waited=False))
    assert all(goes(ours.take(["a@quick.example"], waited=False)) for _ in range(9))


def test_a_domain_that_is_called_too_fast_slows_down_alone_and_is_faster_again_once_it_takes_mail() -> None:
    clock = FakeClock()
    ours = lanes(clock)
    ours.heard({"a@slow.example": TOO_FAST})
    assert goes(ours.take(SLOW, waited=False))
    assert goes(ours.take(SLOW, waited=True))
    assert ours.take(SLOW, waited=True) == pytest.approx(2 * FIRST_PAUSE_S)
    assert all(goes(ours.take(["a@other.example"], waited=False)) for _ in range(9))
    for _ in range(9):
        ours.heard({"a@slow.example": TAKEN})
    assert all(goes(ours.take(SLOW, waited=True)) for _ in range(9))


def test_that_a_domain_slows_down_is_said_once_until_it_is_fast_again() -> None:
    ours = lanes(FakeClock())
    with capture_logs() as said:
        ours.heard({"a@slow.example": TOO_FAST})
        ours.heard({"a@slow.example": TOO_FAST})
        for _ in range(9):
            ours.heard({"a@slow.example": TAKEN})
        ours.heard({"a@slow.example": TOO_FAST})
    assert said == [{"event": "domain_slowed", "log_level": "info", "account": "a", "domain": "slow.example"}] * 2


def test_a_domain_that_refuses_by_policy_again_and_again_slows_down_and_no_other() -> None:
    ours = lanes(FakeClock())
    no = Said(Verdict.REFUSED, "550 5.7.1 blocked", of_recipient=True)
    for _ in range(ALIKE_LIMIT - 1):
        ours.heard({"a@slow.example": no, "b@other.example": no})
    ours.heard({"b@other.example": TAKEN})
    assert all(goes(ours.take([*SLOW, "b@other.example"], waited=False)) for _ in range(9))
    ours.heard({"a@slow.example": no, "b@other.example": no})
    goes(ours.take(SLOW, waited=False))
    goes(ours.take(SLOW, waited=True))
    assert not goes(ours.take(SLOW, waited=False))
    assert goes(ours.take(["b@other.example"], waited=False))


def test_what_is_said_of_who_sends_slows_no_domain() -> None:
    ours = lanes(FakeClock())
    for reply in ("450 4.7.1 too much mail", "421 4.3.2 closing"):
        ours.heard({"a@slow.example": Said(Verdict.PUT_OFF, reply)})
    assert all(goes(ours.take(SLOW, waited=False)) for _ in range(9))


def test_what_is_remembered_of_domains_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.outbound.lanes.HEARD_LIMIT", 50)
    ours = Lanes("a", {"*": Limit(interval_s=60.0)}, FakeClock())
    for n in range(500):
        turn = ours.take([f"a@d{n}.example"], waited=False)
        assert isinstance(turn, Turn)
        ours.give_back(turn, spent=True)
    assert len(ours._lanes) <= 50


async def takes(
    ours: Lanes, clock: FakeClock, come: Sequence[float], *, mail_s: float, late_s: Callable[[], float] = lambda: 0.0
) -> int:
    """How often a turn is asked for until each of those that come back at these times had one; a mail takes so long.

    Who was told to wait comes so much later than he was told.
    """
    asked, ends = 0, list[tuple[float, int, Turn]]()
    waiting = [(at, n) for n, at in enumerate(come)]
    heapify(waiting)
    while waiting:
        at, n = heappop(waiting)
        while ends and ends[0][0] <= at:
            end, _, turn = heappop(ends)
            await clock.advance(end - clock.monotonic())
            ours.give_back(turn, spent=True)
        await clock.advance(at - clock.monotonic())
        asked += 1
        said = ours.take(SLOW, waited=True)
        if isinstance(said, float):
            heappush(waiting, (at + said + late_s(), n))
        else:
            heappush(ends, (at + mail_s, n, said))
    return asked


@pytest.mark.fault("E05")
@pytest.mark.parametrize(
    ("limit", "mail_s"),
    [(Limit(interval_s=2.0), 0.1), (Limit(at_once=2), 0.1), (Limit(at_once=1), 5.0), (Limit(2.0, 1), 5.0)],
)
@pytest.mark.parametrize("apart_s", [0.0, 0.5])
async def test_a_backlog_that_comes_at_once_is_put_off_a_few_times_and_not_each_time_one_goes(
    limit: Limit, mail_s: float, apart_s: float
) -> None:
    """Nobody was there while turns came: they all come back at once, and to a process that promised them nothing."""
    clock, count = FakeClock(), 200
    ours = lanes(clock, slow_example=limit)
    assert await takes(ours, clock, [n * apart_s for n in range(count)], mail_s=mail_s) <= 5 * count


@pytest.mark.fault("E05")
@pytest.mark.parametrize("interval_s", [0.25, 0.95, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("late_s", [0.3, 1.0])
async def test_a_backlog_has_all_of_the_rate_though_everybody_comes_a_little_late(
    interval_s: float, late_s: float
) -> None:
    """Schedules fire in steps, and who is due waits for hands."""
    clock, count, luck = FakeClock(), 200, Random(1)
    ours = lanes(clock, slow_example=Limit(interval_s=interval_s))
    await takes(ours, clock, [0.0] * count, mail_s=0.1, late_s=lambda: luck.uniform(0.005, late_s))
    needed = (count - 1) * interval_s
    assert needed - 1.0 <= clock.monotonic() <= needed * 1.02


@pytest.mark.parametrize("spent", [False, True])
def test_a_turn_that_is_not_spent_is_the_next_ones(spent: bool) -> None:
    ours = lanes(FakeClock(), slow_example=Limit(interval_s=60.0))
    turn = ours.take(SLOW, waited=False)
    assert isinstance(turn, Turn)
    ours.give_back(turn, spent=spent)
    assert goes(ours.take(SLOW, waited=True)) != spent


async def test_a_turn_that_is_not_spent_is_nobodys_once_another_had_the_next_one() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(interval_s=2.0))
    first = ours.take(SLOW, waited=False)
    assert isinstance(first, Turn)
    await clock.advance(2.0)
    assert goes(ours.take(SLOW, waited=False))
    ours.give_back(first, spent=False)
    assert ours.take(SLOW, waited=True) == 2.0


async def test_who_comes_long_after_a_turn_that_nobody_used_makes_the_next_one_no_earlier() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(interval_s=2.0))
    assert goes(ours.take(SLOW, waited=False))
    await clock.advance(60.0)
    assert goes(ours.take(SLOW, waited=False))
    assert ours.take(SLOW, waited=False) == 2.0


async def test_a_mail_that_waits_for_a_slow_domain_keeps_no_turn_of_another() -> None:
    clock = FakeClock()
    ours = lanes(clock, slow_example=Limit(interval_s=3600.0), quick_example=Limit(interval_s=2.0))
    both = [*SLOW, "a@quick.example"]
    assert goes(ours.take(both, waited=False))
    assert ours.take(both, waited=False) == 3600.0
    assert ours.take(["b@quick.example"], waited=False) == 2.0
    await clock.advance(2.0)
    assert goes(ours.take(["b@quick.example"], waited=True))


async def test_domains_that_all_say_something_cost_no_look_at_each_for_every_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.outbound.lanes.HEARD_LIMIT", 1000)
    looked = 0
    is_idle = _Lane.is_idle

    def counted(lane: _Lane, now: float) -> bool:
        nonlocal looked
        looked += 1
        return is_idle(lane, now)

    monkeypatch.setattr(_Lane, "is_idle", counted)
    ours = Lanes("a", {"*": Limit(interval_s=60.0)}, FakeClock())
    for n in range(3000):
        ours.take([f"a@d{n}.example"], waited=False)
    assert len(ours._lanes) <= 1000
    assert looked <= 20 * 3000


@pytest.mark.fault("E05")
async def test_a_domain_that_waits_leaves_the_queue_and_keeps_nobody_elses_mail(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=3600.0)}):
        for n in range(100):
            await post.request(f"slow{n}", to=[{"email": f"a{n}@slow.example"}])
        await post.request("other")
        await post.states(2)
        async with asyncio.timeout(LIMIT_S):
            while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 an empty stream rings no bell
                await asyncio.sleep(0.02)
    gone = sorted(event.body.id for event in post.events)
    assert (len(gone), gone[0], gone[1][:4]) == (2, "other", "slow")
    assert await bus.pending(bus.subjects.stream_later, ">") == 99


async def test_whoever_waited_goes_in_turn(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=0.6)}):
        for n in range(4):
            await post.request(f"r{n}", to=[{"email": "a@slow.example"}])
        await post.states(4)
        await post.empty()
    assert {state for _, state in await post.states(4)} == {"sent"}
    assert {event.body.attempt for event in post.events} == {1}


async def test_of_a_message_for_each_every_mail_waits_for_its_own_domain(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=0.7)}):
        people = [{"email": "a@x.example"}, {"email": "a@slow.example"}, {"email": "b@slow.example"}]
        await post.request("r", split=True, to=people)
        await post.states(3)
        await post.empty()
    assert len(relay.messages) == 3
