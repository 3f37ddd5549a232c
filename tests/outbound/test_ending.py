"""The account's work ends within a mailing: what is known is stored, and nobody is in doubt who was not asked."""

import asyncio
from typing import Any

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from service.outbound import Limit, Phase
from service.outbound.sends import SendRecord, Sends
from tests.outbound.conftest import LIMIT_S, Post, delivered, deliveries, sending
from tests.servers.smtp import Handler, RelayMaker, ScriptedRelay


async def record_of(bus: Bus, id: str) -> SendRecord:
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    record, _ = await sends.get(request_key("a", id))
    assert record is not None
    return record


def outcomes(post: Post) -> set[tuple[str, str]]:
    return {(who, event.state) for event in post.events for who in delivered(event)}


@pytest.mark.fault("E04")
async def test_who_waits_for_a_domains_turn_is_in_no_doubt_and_what_was_said_of_the_others_is_kept(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So near a turn is waited for in hand.
    monkeypatch.setattr("service.outbound.mailing.NEAR_S", 3600.0 * 3)
    to = [{"email": f"{who}.example"} for who in ("a@x", "b@x", "c@slow", "d@slow", "e@slow")]
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=3600.0)}):
        await post.request("r", to=to, split=True)
        await relay.received(3)
    record = await record_of(bus, "r")
    assert (record.phase, record.unsure) == (Phase.WAITING, 0)
    assert set(record.pending) == {"d@slow.example", "e@slow.example"}
    async with sending(bus, relay):
        await post.states(5)
        await post.empty()
    assert {state for _, state in outcomes(post)} == {"sent"}
    assert sorted(mail.rcpt_to[0] for mail in relay.messages) == sorted(one["email"] for one in to)


@pytest.mark.fault("E04")
async def test_a_mailing_that_was_not_begun_yet_goes_back_to_the_queue(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    places = deliveries(4, 4 * 1024 * 1024)
    full = await places.memory.take(places.memory._large.limit)

    async def give_then(stopped: asyncio.Event) -> None:
        await stopped.wait()
        places.memory.give(full)

    async with asyncio.TaskGroup() as group, sending(bus, relay, places=places) as sender:
        await post.request("r", to=[{"email": f"{n}@x.example"} for n in range(2)], split=True, text="x" * 100_000)
        async with asyncio.timeout(LIMIT_S):
            while not places.memory._large._waiting:  # noqa: ASYNC110 who begins to wait for memory rings no bell
                await asyncio.sleep(0.02)
        group.create_task(give_then(sender._hands._stop))
    assert not relay.messages
    async with sending(bus, relay):
        assert await post.states(2) == [("r", "sent"), ("r", "sent")]
        await post.empty()


class Stalling(Handler):
    """Never answers the mail of one."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        said = await super().handle_DATA(server, session, envelope)
        if "stalled@x.example" in envelope.rcpt_tos:
            await asyncio.Event().wait()
        return said


@pytest.mark.fault("E04")
async def test_a_mail_that_is_not_answered_leaves_itself_alone_in_doubt(
    bus: Bus, post: Post, make_relay: RelayMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.mailing.ENDING_S", 0.5)
    relay = await make_relay(handler=Stalling)
    to = [{"email": f"{who}@x.example"} for who in ("a", "b", "stalled", "c")]
    async with sending(bus, relay, uncertain="hold") as sender:
        await post.request("r", to=to, split=True)
        await relay.received(4)
        async with asyncio.timeout(LIMIT_S):
            while len(sender._relay._idle) < 3:  # noqa: ASYNC110 a connection that was answered rings no bell
                await asyncio.sleep(0.02)
    await post.states(4)
    assert outcomes(post) == {
        ("a@x.example", "sent"), ("b@x.example", "sent"), ("c@x.example", "sent"),
        ("stalled@x.example", "uncertain"),
    }  # fmt: skip
    assert (await record_of(bus, "r")).held == ["stalled@x.example"]
