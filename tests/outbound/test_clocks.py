"""Requests that wait, where the clock of mailbus is behind that of NATS: not tried again and again, nor too early."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from nats.js.errors import NotFoundError

from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from tests.outbound.conftest import LIMIT_S, Post, sending, soon
from tests.servers.smtp import ScriptedRelay

AN_HOUR = timedelta(hours=1)
LONG_S = 1000.0


class Behind(SystemClock):
    """An hour behind NATS's."""

    def now(self) -> datetime:
        return super().now() - AN_HOUR


async def scheduled_for(bus: Bus, id: str, after: datetime) -> datetime:
    """When NATS lets it come, once that is after a time."""
    subjects, js = bus.subjects, bus.nc.jetstream()
    async with asyncio.timeout(LIMIT_S):
        while True:
            subject = subjects.later("a", request_key("a", id))
            # It may come, and be put off again, between two looks.
            with suppress(NotFoundError):
                found = await js.get_last_msg(subjects.stream_later, subject)
                at = datetime.fromisoformat((found.headers or {})["Nats-Schedule"].removeprefix("@at "))
                if at > after:
                    return at
            await asyncio.sleep(0.02)


@pytest.mark.fault("F04")
@pytest.mark.parametrize("policy", ["retry", "hold"])
async def test_a_clock_behind_that_of_nats_makes_no_tight_loop(
    bus: Bus, post: Post, relay: ScriptedRelay, policy: str
) -> None:
    true = SystemClock()
    more: dict[str, str] = {}
    if policy == "hold":
        relay.script.cut = ["before_reply"]
        more["expiresAt"] = soon(1)
    else:
        relay.script.rcpt = {"a@x.example": ["451 4.2.0 busy"]}
    async with sending(bus, relay, clock=Behind(), uncertain=policy, retry_first_s=LONG_S, retry_max_s=LONG_S):
        began = true.now()
        await post.request("r", **more)
        await scheduled_for(bus, "r", began + timedelta(seconds=LONG_S / 4))
        await post.states(1)
    assert [event.state for event in post.events] == ["uncertain" if policy == "hold" else "deferred"]


class BehindABit(SystemClock):
    """Five seconds behind NATS's."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=5)


@pytest.mark.fault("F04")
async def test_a_clock_that_is_a_little_behind_makes_no_attempt_of_a_request_that_expires(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"a@x.example": ["451 4.2.0 busy"]}
    async with sending(bus, relay, clock=BehindABit(), retry_first_s=LONG_S, retry_max_s=LONG_S):
        await post.request("r", expiresAt=soon(1))
        await post.until(lambda: any(event.state == "failed" for event in post.events))
        await post.empty()
    assert [event.state for event in post.events] == ["deferred", "failed"]
