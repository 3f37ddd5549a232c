"""Who goes alone waits for nothing while he keeps everybody else out, and keeps the connection that he waited for."""

import asyncio
from typing import Any

import pytest

from service.bus import Bus
from service.contract import encode
from service.outbound.suspects import _Mark, _name
from tests.outbound.conftest import LIMIT_S, Post, deliveries, sending
from tests.outbound.test_memory import LARGE, large
from tests.outbound.test_suspects import given_back
from tests.servers.smtp import RelayMaker, ScriptedRelay


@pytest.fixture(autouse=True)
def alone_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is let in because it took too long."""
    monkeypatch.setattr("service.outbound.places.ALONE_S", 3600.0)


async def suspected(bus: Bus, post: Post, id: str, **fields: Any) -> None:
    """A request that was in hand as a process ended."""
    await post.request(id, **fields)
    job = await given_back(bus)
    await bus.key_value(bus.subjects.sends).create(_name(job), encode(_Mark("gone/1", 0)))


@pytest.mark.fault("E05", "E14")
async def test_who_is_to_go_alone_and_waits_for_a_connection_keeps_no_other_account_waiting(
    bus: Bus, post: Post, relay: ScriptedRelay, make_relay: RelayMaker
) -> None:
    places, others = deliveries(), Post(bus, account="b")
    await suspected(bus, post, "suspect")
    async with sending(bus, relay, smtp={"connections": 1}, places=places) as sender:
        # Before anything is taken from the queue.
        booking = await sender._relay.book()
        async with asyncio.timeout(LIMIT_S):
            while not sender._relay._waiting:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.01)
        async with sending(bus, await make_relay(), places=places, account="b"):
            await others.request("other")
            assert await post.states(1) == [("other", "sent")]
        booking.end()
        assert (await post.states(2))[1:] == [("suspect", "sent")]
        await post.empty()
    assert relay.connections == 1


@pytest.mark.fault("E05", "F06")
async def test_who_is_to_go_alone_and_waits_for_memory_keeps_no_other_account_waiting(
    bus: Bus, post: Post, relay: ScriptedRelay, make_relay: RelayMaker
) -> None:
    places, others = deliveries(memory=4 * LARGE), Post(bus, account="b")
    await suspected(bus, post, "suspect", attachments=await large(bus, b"x"))
    held = await places.memory.take(3 * LARGE)
    async with sending(bus, relay, places=places):
        async with asyncio.timeout(LIMIT_S):
            while not places.memory._large._waiting:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.01)
        async with sending(bus, await make_relay(), places=places, account="b"):
            await others.request("other")
            assert await post.states(1) == [("other", "sent")]
        places.memory.give(held)
        assert (await post.states(2))[1:] == [("suspect", "sent")]
        await post.empty()


async def test_all_mails_of_who_goes_alone_go_by_the_connection_that_he_waited_for(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    to = [{"email": f"{n}@x.example"} for n in range(4)]
    await suspected(bus, post, "suspect", to=to, split=True)
    async with sending(bus, relay, smtp={"connections": 2}) as sender:
        await post.states(4)
        await post.empty()
        assert sender._relay._count == len(sender._relay._idle) == 1
    assert [mail.rcpt_to for mail in relay.messages] == [[one["email"]] for one in to]
    assert relay.connections == 1
