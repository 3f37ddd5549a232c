"""Whoever an attempt may have reached is never said to have got nothing, whatever becomes of the request later."""

import asyncio

import msgspec
import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import EmailSubmission, request_key
from service.outbound.retry import Phase, expire
from service.outbound.sends import SendRecord, Sends
from service.outbound.settle import changed, schedule
from service.outbound.status import statuses_of
from tests.outbound.conftest import LIMIT_S, Post, delivered, sending
from tests.servers.smtp import ScriptedRelay

TO = [{"email": "a@x.example"}, {"email": "b@x.example"}]


def said(post: Post) -> list[tuple[str, dict[str, str]]]:
    return [(event.state, delivered(event)) for event in post.events]


@pytest.mark.parametrize("split", [False, True])
async def test_refused_after_an_answer_was_lost_is_failed_and_perhaps_delivered(
    bus: Bus, post: Post, relay: ScriptedRelay, split: bool
) -> None:
    relay.script.cut = ["before_reply"]
    relay.script.rcpt = {"a@x.example": ["250 OK", "550 5.1.1 unknown"]}
    async with sending(bus, relay):
        await post.request("r", split=split)
        await post.states(2)
        await post.empty()
    assert said(post) == [("uncertain", {"a@x.example": "queued"}), ("failed", {"a@x.example": "unknown"})]
    assert post.events[1].body.undo_status == "final"


@pytest.mark.fault("E01", "E02")
async def test_cut_in_mid_body_while_the_intent_is_written_is_in_no_doubt(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Sends.put

    async def answered_late(self: Sends, key: str, record: SendRecord, revision: int) -> int:
        revision = await put(self, key, record, revision)
        if record.phase is Phase.INTENT and record.attempt == 1:
            while relay._open:  # noqa: ASYNC110 a connection that is cut rings no bell
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # until it is heard of
        return revision

    monkeypatch.setattr(Sends, "put", answered_late)
    relay.script.cut = ["body"]
    # More than what stands between the two takes.
    blob = await bus.blobs().put(bytes(12_000_000), now=SystemClock().now())
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r", attachments=[{"blobId": blob, "name": "large"}])
        assert await post.states(2) == [("r", "deferred"), ("r", "sent")]
        await post.empty()
    assert len(relay.messages) == 1


def test_expired_after_an_answer_was_lost_is_perhaps_delivered_and_who_was_only_put_off_is_not() -> None:
    decision = expire({"a": "451 4.2.0 busy", "b": "451 4.2.0 busy"}, ["c"])
    now = SystemClock().now()
    (status,) = statuses_of(decision, key="k", id="r", message_ids="m", attempt=2, now=now, taken=["a", "c", "d"])
    body = msgspec.json.decode(status.body, type=EmailSubmission)
    assert {who: one.delivered for who, one in body.delivery_status.items()} == {
        "a": "unknown", "b": "no", "c": "unknown",
    }  # fmt: skip


async def test_cancelled_after_a_lost_answer_and_a_deferral_is_perhaps_delivered(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    relay.script.rcpt = {"a@x.example": ["250 OK", "451 4.2.0 busy"]}
    async with sending(bus, relay, retry_first_s=0.4, retry_factor=1000.0) as sender:
        await post.request("r")
        await post.states(2)
        async with asyncio.timeout(LIMIT_S):
            while (undone := await sender.waiting.cancel("r")) is None or not undone.cancelled:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await post.states(3)
    assert undone.undo_status == "final"
    assert said(post)[-1] == ("cancelled", {"a@x.example": "unknown"})


async def test_a_request_that_cannot_be_read_any_more_tells_of_who_was_on_hold_too(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy"]}
    clock = SystemClock()
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)
    async with sending(bus, relay, uncertain="hold", retry_first_s=3600.0):
        await post.request("r", to=TO)
        await post.states(2)
        key = request_key("a", "r")
        async with asyncio.timeout(LIMIT_S):
            while not await bus.pending(  # noqa: ASYNC110 nothing rings
                bus.subjects.stream_later, bus.subjects.later("a", key)
            ):
                await asyncio.sleep(0.02)
        record, revision = await sends.get(key)
        assert record is not None
        # Before its own time nothing is tried.
        record = changed(record, next_at=clock.now())
        await sends.put(key, record, revision)
        await bus.blobs(bus.subjects.outbox).delete(str(record.outbox))
        await schedule(bus, "a", key, record, clock.now())
        await post.states(3)
    assert said(post)[-1] == ("failed", {"a@x.example": "unknown", "b@x.example": "no"})
