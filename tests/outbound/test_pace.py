"""Rates: spread evenly, slower while the relay says that it is too much, and nobody else's affair."""

import asyncio

import pytest

from service.bus import Bus
from service.outbound.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, Pace
from service.outbound.retry import Said, Verdict
from tests.outbound.conftest import Post, sending
from tests.servers.clock import FakeClock
from tests.servers.smtp import RelayMaker


class PassingClock(FakeClock):
    """Whoever sleeps makes the time pass."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._passed_s += seconds


TAKEN = [Said(Verdict.ACCEPTED, "250 2.0.0 OK")]
TOO_FAST = [Said(Verdict.PUT_OFF, "450 4.7.1 too much mail")]
CLOSING = [Said(Verdict.PUT_OFF, "421 4.3.2 closing")]
BUSY = [Said(Verdict.PUT_OFF, "451 4.2.0 mailbox busy")]


async def test_turns_are_spread_evenly_and_come_in_order() -> None:
    clock = PassingClock()
    pace = Pace(2.0, clock)
    began = clock.monotonic()
    for n in range(5):
        await pace.turn()
        assert clock.monotonic() - began >= 2.0 * n
    assert clock.monotonic() - began <= 2.0 * 5


async def test_without_a_rate_nobody_waits() -> None:
    clock = PassingClock()
    pace = Pace(0.0, clock)
    began = clock.monotonic()
    for _ in range(100):
        await pace.turn()
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


def test_a_rate_is_never_exceeded_by_what_was_learned() -> None:
    pace = Pace(3.0, FakeClock())
    pace.heard(TOO_FAST)
    pace.heard(TAKEN)
    assert pace.interval_s == 3.0


@pytest.mark.fault("E05")
async def test_an_account_that_waits_for_its_rate_keeps_nobody_elses_mail(bus: Bus, make_relay: RelayMaker) -> None:
    """The process has one place; one account has a hundred mails and may send one an hour."""
    slow, quick = await make_relay(), await make_relay()
    places = asyncio.Semaphore(1)
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


@pytest.mark.fault("E05")
async def test_one_accounts_long_queue_does_not_delay_anothers_one_mail(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    """The process has as many places as the one account would take alone."""
    relay = await make_relay()
    places = asyncio.Semaphore(8)
    for n in range(300):
        await post.request(f"many{n}")
    await Post(bus, account="b").request("one")
    async with sending(bus, relay, places=places), sending(bus, relay, places=places, account="b"):
        said = await post.states(301)
    assert said.index(("one", "sent")) < 150
