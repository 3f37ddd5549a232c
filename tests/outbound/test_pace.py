"""Rates: spread evenly, slower while the relay says that it is too much, and nobody else's affair."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.bus import ACK_WAIT_S, Bus
from service.clock import SystemClock
from service.outbound import Limit
from service.outbound.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, Pace
from service.outbound.places import Place
from service.outbound.retry import Said, Verdict
from tests.outbound.conftest import LIMIT_S, Post, deliveries, sending, soon
from tests.servers.clock import FakeClock
from tests.servers.smtp import RelayMaker, ScriptedRelay


class PassingClock(FakeClock):
    """Whoever sleeps makes the time pass."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._passed_s += seconds


TAKEN = {"a@x.example": Said(Verdict.ACCEPTED, "250 2.0.0 OK")}
TOO_FAST = {"a@x.example": Said(Verdict.PUT_OFF, "450 4.7.1 too much mail")}
CLOSING = {"a@x.example": Said(Verdict.PUT_OFF, "421 4.3.2 closing")}
BUSY = {"a@x.example": Said(Verdict.PUT_OFF, "451 4.2.0 mailbox busy")}


async def test_turns_are_spread_evenly_and_come_in_order() -> None:
    clock = PassingClock()
    pace = Pace(2.0, clock)
    began = clock.monotonic()
    for n in range(5):
        assert await pace.turn(asyncio.Event()) is not None
        assert clock.monotonic() - began >= 2.0 * n
    assert clock.monotonic() - began <= 2.0 * 5


async def test_without_a_rate_nobody_waits() -> None:
    clock = PassingClock()
    pace = Pace(0.0, clock)
    began = clock.monotonic()
    for _ in range(100):
        assert await pace.turn(asyncio.Event()) is not None
        pace.heard(TAKEN)
    assert clock.monotonic() == began


def test_what_the_relay_says_makes_it_slower_and_each_mail_that_is_taken_faster() -> None:
    pace = Pace(0.0, FakeClock())
    pace.heard(BUSY)
    assert pace.interval_s == 0
    pace.heard(TOO_FAST)
    assert pace.interval_s == FIRST_PAUSE_S
    pace.heard(CLOSING)
    assert pace.interval_s == FIRST_PAUSE_S * 2
    for _ in range(20):
        pace.heard(TOO_FAST)
    assert pace.interval_s == LONGEST_PAUSE_S
    for _ in range(12):
        pace.heard(TAKEN)
    assert pace.interval_s == 0


def of_domains(*domains: str) -> dict[str, Said]:
    """What RCPT was answered with."""
    return {f"a@{one}.example": Said(Verdict.PUT_OFF, "450 4.7.1 greylisted", of_recipient=True) for one in domains}


def test_what_one_domain_says_of_its_own_recipients_slows_nobody_elses_mail() -> None:
    pace = Pace(0.0, FakeClock())
    for _ in range(100):
        pace.heard(of_domains("slow"))
        pace.heard(of_domains("slow", "other"))
    assert pace.interval_s == 0


def test_what_many_domains_say_alike_while_nothing_is_taken_is_about_the_account() -> None:
    pace = Pace(0.0, FakeClock())
    pace.heard(of_domains("a"))
    pace.heard(of_domains("b"))
    pace.heard(TAKEN)
    pace.heard(of_domains("c"))
    pace.heard(of_domains("d"))
    assert pace.interval_s == 0
    pace.heard(of_domains("e"))
    assert pace.interval_s == FIRST_PAUSE_S
    pace.heard(of_domains("e"))
    assert pace.interval_s == FIRST_PAUSE_S * 2


@pytest.mark.parametrize(
    ("said", "slower"),
    [
        ({"mail": "450 4.7.1 too much mail"}, (True, False)),
        ({"rcpt": {"a@slow.example": ["450 4.7.1 greylisted"]}}, (False, True)),
        ({"rcpt": {"a@slow.example": ["421 4.7.0 closing"]}}, (True, False)),
        ({"data": ["451 4.7.1 too much mail"]}, (True, False)),
    ],
)
async def test_an_answer_to_rcpt_slows_the_domain_and_any_other_the_account(
    bus: Bus, post: Post, relay: ScriptedRelay, said: dict[str, Any], slower: tuple[bool, bool]
) -> None:
    for name, value in said.items():
        setattr(relay.script, name, value)
    async with sending(bus, relay, retry_first_s=3600.0) as sender:
        await post.request("r", to=[{"email": "a@slow.example"}])
        assert await post.states(1) == [("r", "deferred")]
        deliverer = sender._deliverer
        lane = deliverer.lanes._lanes.get("slow.example")
        assert (deliverer.pace.interval_s > 0, lane is not None and lane.interval_s > 0) == slower


def test_a_rate_is_never_exceeded_by_what_was_learned() -> None:
    pace = Pace(3.0, FakeClock())
    pace.heard(TOO_FAST)
    pace.heard(TAKEN)
    assert pace.interval_s == 3.0


@pytest.mark.fault("E05")
async def test_an_account_that_waits_for_its_rate_keeps_nobody_elses_mail(bus: Bus, make_relay: RelayMaker) -> None:
    """The process has one place; one account has a hundred mails and may send one an hour."""
    slow, quick = await make_relay(), await make_relay()
    places = deliveries(1)
    many, other = Post(bus, account="a"), Post(bus, account="b")
    await other.watch()
    async with (
        sending(bus, slow, places=places, interval_s=3600.0),
        sending(bus, quick, places=places, account="b"),
    ):
        for n in range(100):
            await many.request(f"many{n}")
        await slow.received(1)
        await other.request("one")
        await other.until(lambda: any(event.body.id == "one" for event in other.events))
    assert len(quick.messages) == 1
    assert len(slow.messages) == 1


class CountedPace(Pace):
    """`taken`: how many turns were, and not given back."""

    taken = 0

    async def turn(self, ending: asyncio.Event) -> float | None:
        CountedPace.taken += 1
        return await super().turn(ending)

    def give_back(self, last: float) -> None:
        CountedPace.taken -= 1
        super().give_back(last)


@pytest.mark.fault("E05")
async def test_only_what_goes_to_the_relay_takes_a_turn(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the same id again, what has expired, what waits for its time or its domain, what is wrong."""
    monkeypatch.setattr("service.outbound.deliver.Pace", CountedPace)
    CountedPace.taken = 0
    async with sending(bus, relay, interval_s=0.01, domains={"slow.example": Limit(interval_s=3600.0)}):
        await post.request("r")
        await post.states(1)
        for _ in range(3):
            await post.request("r")
        await post.request("old", expiresAt=soon(-60))
        await post.request("later", sendAt=soon(3600))
        await post.request("wrong", to=[{"email": "nobody"}])
        for n in range(3):
            await post.request(f"slow{n}", to=[{"email": "a@slow.example"}])
        async with asyncio.timeout(LIMIT_S):
            while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 an empty stream rings no bell
                await asyncio.sleep(0.02)
    assert (len(relay.messages), CountedPace.taken) == (2, 2)


@pytest.mark.fault("E05")
async def test_who_waits_for_the_accounts_turn_keeps_nobody_from_a_domains(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, interval_s=3600.0, domains={"x.example": Limit(at_once=1)}) as sender:
        for n in range(6):
            await post.request(f"r{n}")
        await post.states(1)
        async with asyncio.timeout(LIMIT_S):
            while len(sender._hands) < 5 or sender._deliverer.lanes._lanes["x.example"].full:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_turn_that_is_given_back_is_the_next_ones() -> None:
    clock = PassingClock()
    pace = Pace(2.0, clock)
    first, second = [await pace.turn(asyncio.Event()) for _ in range(2)]
    assert first is not None
    assert second is not None
    pace.give_back(second)
    assert not pace.waits
    await pace.turn(asyncio.Event())
    pace.give_back(first)
    assert pace.waits


@pytest.mark.parametrize("why", ["given back", "taken", "ending"])
async def test_whoever_waits_for_the_accounts_turn_is_told_at_once_that_it_is_earlier(why: str) -> None:
    clock, ending = FakeClock(), asyncio.Event()
    pace = Pace(0.0 if why == "taken" else 3600.0, clock)
    for _ in range(3):
        pace.heard(TOO_FAST)
    first = await pace.turn(ending)
    assert first is not None
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(pace.turn(ending))
        await clock.settle()
        assert not waiting.done()
        if why == "given back":
            pace.give_back(first)
        elif why == "ending":
            ending.set()
        else:
            for _ in range(6):
                pace.heard(TAKEN)
    assert (waiting.result() is None) == (why == "ending")
    assert clock.monotonic() == 0


async def test_a_turn_that_a_job_does_not_spend_is_the_next_ones() -> None:
    pace = Pace(2.0, PassingClock())
    for spent in (False, True):
        place = Place(asyncio.Semaphore(1), deliveries(1), pace=pace)
        await place.turn()
        if spent:
            place.spend_turn()
        place.end()
        assert pace.waits == spent


@pytest.mark.parametrize("split", [False, True])
async def test_who_is_turned_away_before_he_has_a_connection_spent_no_turn(
    bus: Bus, post: Post, relay: ScriptedRelay, split: bool
) -> None:
    limits = {"x.example": Limit(interval_s=3600.0)}
    async with sending(bus, relay, smtp={"connections": 1}, interval_s=3600.0, domains=limits) as sender:
        pool, seen = sender._relay, None
        # Before anything is taken from the queue.
        booking = await pool.book()
        await post.request("r", split=split)
        for _ in range(2):
            async with asyncio.timeout(LIMIT_S):
                while not pool._waiting or pool._waiting[0] is seen:  # noqa: ASYNC110 nothing rings
                    await asyncio.sleep(0.01)
            seen = pool._waiting[0]
            pool.turn_away()
        booking.end()
        assert await post.states(1) == [("r", "sent")]


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest.mark.fault("E05")
async def test_who_expires_while_he_waits_for_the_accounts_turn_takes_none(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    """Where more is asked for than the rate lets go, nobody would get one before he expires."""
    clock = Later()
    async with sending(bus, relay, interval_s=1800.0, clock=clock) as sender:
        await post.request("first")
        await post.states(1)
        for n in range(5):
            await post.request(f"short{n}", expiresAt=soon(600))
        await post.request("long", expiresAt=soon(3000))
        async with asyncio.timeout(LIMIT_S):
            while len(sender._hands) < 6:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        clock.ahead_s = 1801.0
        sender._deliverer.pace._sooner.set()  # a clock that is put forward wakes nobody
        said = await post.states(7)
    assert sorted(said) == [("first", "sent"), ("long", "sent"), *((f"short{n}", "failed") for n in range(5))]


async def test_who_had_nothing_to_wait_for_gives_nobodys_turn_back() -> None:
    """He came before the relay made the account slower."""
    pace = Pace(0.0, PassingClock())
    place = Place(asyncio.Semaphore(1), deliveries(1), pace=pace)
    pace.heard(TOO_FAST)
    await pace.turn(asyncio.Event())
    pace.heard(TAKEN)
    for _ in range(20):
        pace.heard(TAKEN)
    await place.turn()
    pace.heard(TOO_FAST)
    place.give_turn_back()
    assert pace.waits


@pytest.mark.fault("E05")
async def test_who_waits_for_the_accounts_turn_goes_back_to_the_queue_when_the_work_ends(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, interval_s=3600.0) as sender:
        for n in range(9):
            await post.request(f"r{n}")
        await post.states(1)
        async with asyncio.timeout(LIMIT_S):
            while len(sender._hands) < 8:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
    async with sending(bus, relay):
        # Long before a job comes back whose process was killed.
        await asyncio.wait_for(post.states(9), ACK_WAIT_S / 2)
        await post.empty()
    assert len(relay.messages) == 9


@pytest.mark.fault("E05")
async def test_one_accounts_long_queue_does_not_delay_anothers_one_mail(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    """The process has as many places as the one account would take alone."""
    relay = await make_relay()
    places = deliveries(8)
    for n in range(300):
        await post.request(f"many{n}")
    await Post(bus, account="b").request("one")
    async with sending(bus, relay, places=places), sending(bus, relay, places=places, account="b"):
        said = await post.states(301)
    assert said.index(("one", "sent")) < 150
