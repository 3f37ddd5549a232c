"""When the next look at a maildrop is due, and that none is taken in vain."""

import asyncio

import pytest

from service.bus import Bus
from service.ingest.visits import JITTER, Visits
from service.pop3 import Door
from tests.ingest.maildrop import Drop, following, mail
from tests.pop3.harness import answering, options
from tests.servers.clock import FakeClock
from tests.servers.mailbus import BusReader
from tests.servers.pop3_stub import Pop3Stub

POLL_S = 100.0


async def next_look(port: int, luck: float) -> float:
    """After how many seconds another look is due."""
    clock = FakeClock(luck=luck)
    visits = Visits(Door(options(port), asyncio.Semaphore(1), clock, locked_s=1.0), POLL_S, clock)
    await visits.begin()
    await visits.leave()
    visits.looked()
    while not visits.is_due:
        await clock.advance(1.0)
    return clock.monotonic()


async def test_looks_of_accounts_that_began_together_do_not_stay_together(pop3_stub: Pop3Stub) -> None:
    due = [await next_look(pop3_stub.port, luck) for luck in (0.0, 0.25, 0.5, 0.75, 0.99)]
    assert due == sorted(set(due))
    assert due[0] == POLL_S * (1 - JITTER / 2)
    assert due[2] == POLL_S
    assert POLL_S < due[-1] <= POLL_S * (1 + JITTER / 2)


@pytest.mark.fault("B02")
async def test_chance_makes_no_look_come_before_the_server_wants_one(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities += " LOGIN-DELAY(300)"
    assert await next_look(pop3_stub.port, 0.0) == 300.0


async def test_one_look_shows_which_of_many_that_the_server_refuses_are_still_there(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(n) for n in range(1, 8)]
    pop3_stub.hooks["RETR"] = answering("-ERR no\r\n")
    async with following(bus, Drop(pop3_stub.port, poll_s=3600.0)):
        await reader.wait_received(7)
    assert pop3_stub.commands.count("LIST") == 2
