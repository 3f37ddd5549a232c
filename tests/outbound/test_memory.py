"""Large mails: as many at once as there is memory for, and nobody who is small waits for them."""

import asyncio
from datetime import datetime, timedelta

import pytest

from service.budget import Share
from service.bus import Bus
from service.clock import SystemClock
from service.mime import MimeLimits, parse
from service.outbound import Limit
from tests.outbound.conftest import LIMIT_S, Post, delivered, deliveries, sending, soon
from tests.outbound.test_waiting import scheduled
from tests.servers.smtp import ScriptedRelay

LARGE = 1_000_000


async def large(bus: Bus, fill: bytes) -> list[dict[str, str]]:
    """The attachments of a request with a large file."""
    blob = await bus.blobs().put(fill * LARGE, now=SystemClock().now())
    return [{"blobId": blob, "name": "a.bin", "type": "application/octet-stream"}]


@pytest.mark.fault("F06")
async def test_large_mails_go_one_by_one_where_memory_is_for_one_and_small_ones_pass_them(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    places = deliveries(16, 4 * LARGE)
    async with sending(bus, relay, places=places):
        for n in range(3):
            await post.request(f"large{n}", attachments=await large(bus, b"%d" % n))
        await relay.received(1)
        await post.request("small")
        await relay.received(2)
        assert [len(mail.content) > LARGE for mail in relay.messages] == [True, False]
        relay.script.hold.set()
        assert {state for _, state in await post.states(4)} == {"sent"}
        await post.empty()
    for mail in relay.messages:
        (attachments,) = [parse(mail.content, received_at=None, limits=MimeLimits(), inline_limit=0).email.attachments]
        assert [one.size for one in attachments or []] in ([LARGE], [])


@pytest.mark.fault("F06")
async def test_what_waits_for_memory_holds_no_place_that_who_has_it_may_need(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    """A request of many mails has the memory and needs places, which others would hold that wait for memory."""
    async with sending(bus, relay, places=deliveries(2, 4 * LARGE), smtp={"connections": 2}):
        files = await large(bus, b"x")
        to = [{"email": f"{n}@x.example"} for n in range(5)]
        await post.request("split", to=to, split=True, attachments=files)
        for n in range(4):
            await post.request(f"r{n}", attachments=files)
        await post.until(lambda: len({event.body.id for event in post.events}) == 5)
        await post.empty()
    assert len(relay.messages) == 9


@pytest.mark.fault("F06")
async def test_a_large_mail_that_waits_for_its_next_attempt_and_then_for_memory_is_sent(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"a@x.example": ["451 4.2.0 busy", "451 4.2.0 busy", "250 OK"]}
    async with sending(bus, relay, places=deliveries(2, LARGE)):
        for n in range(2):
            await post.request(f"large{n}", attachments=await large(bus, b"%d" % n))
        await post.until(lambda: sum(event.state == "sent" for event in post.events) == 2)
        await post.empty()
    assert {len(mail.content) > LARGE for mail in relay.messages} == {True}


class Ahead(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


async def somebody_waits(memory: Share) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not memory._large._waiting:  # noqa: ASYNC110 who begins to wait for memory rings no bell
            await asyncio.sleep(0.02)


@pytest.mark.fault("E05", "F06")
@pytest.mark.parametrize("later", [False, True])
async def test_who_waits_for_memory_keeps_nobody_from_his_domain(
    bus: Bus, post: Post, relay: ScriptedRelay, later: bool
) -> None:
    """A mailing has memory and waits for the domain, who has the domain waits for memory: neither would ever go."""
    memory = (places := deliveries(4, 4 * LARGE)).memory
    full = await memory.take(memory._large.limit)
    to = [{"email": "a@slow.example"}]
    async with sending(bus, relay, places=places, domains={"slow.example": Limit(at_once=1)}):
        at = {"sendAt": soon(4)} if later else {}
        await post.request("large", to=to, attachments=await large(bus, b"x"), **at)
        if later:
            await somebody_waits(memory)
            memory.give(full)
            await scheduled(post)
            full = await memory.take(memory._large.limit)
        await somebody_waits(memory)
        await post.request("small", to=to)
        assert await post.states(1) == [("small", "sent")]
        memory.give(full)
        await post.states(2)
        await post.empty()
    assert [event.state for event in post.events] == ["sent", "sent"]


async def test_who_waits_for_memory_beyond_his_expiry_is_not_sent_after_it(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy"]}
    relay.script.hold = asyncio.Event()
    memory, clock = (places := deliveries(4, 4 * LARGE)).memory, Ahead()
    async with sending(bus, relay, places=places, clock=clock):
        to = [{"email": "a@x.example"}, {"email": "b@x.example"}]
        await post.request("r", to=to, text="x" * 100_000, expiresAt=soon(600))
        await relay.received(1)
        async with asyncio.TaskGroup() as group:
            # All that there is, as soon as the first attempt gives its part back.
            filling = group.create_task(memory.take(memory._large.limit))
            await somebody_waits(memory)
            relay.script.rcpt = {}
            relay.script.hold.set()
            full = await filling
        await somebody_waits(memory)
        clock.ahead = timedelta(hours=1)
        memory.give(full)
        await post.until(lambda: any(event.state == "failed" for event in post.events))
        await post.empty()
    assert [delivered(event) for event in post.events if event.state == "failed"] == [{"b@x.example": "no"}]
    assert len(relay.messages) == 1
