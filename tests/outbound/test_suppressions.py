"""Addresses that get nothing: `failed`, without a word to the relay, and only for their own account."""

import asyncio

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.errors import Inward
from service.outbound.suppressions import Suppressions, suppression_key
from tests.outbound.conftest import Post, sending
from tests.servers.smtp import ScriptedRelay


def suppressions(bus: Bus, account: str = "a") -> Suppressions:
    return Suppressions(bus, account, SystemClock())


async def test_who_is_on_the_list_gets_nothing_and_the_others_do(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    assert await suppressions(bus).add("B@X.example", "hard bounce")
    assert await suppressions(bus, "another").add("a@x.example", "not this account's")
    async with sending(bus, relay):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(2)
        await post.empty()
    assert [mail.rcpt_to for mail in relay.messages] == [["a@x.example"]]
    failed = next(event for event in post.events if event.state == "failed")
    assert {who: one.smtp_reply for who, one in failed.body.delivery_status.items()} == {
        "b@x.example": "550 5.7.1 not sent by mailbus: suppressed"
    }


async def test_where_nobody_is_left_the_relay_is_not_asked(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await suppressions(bus).add("a@x.example", "complaint")
    async with sending(bus, relay):
        for n in range(25):
            await post.request(f"r{n}")
        await post.states(25)
        await post.empty()
        # Nor is the relay taken for one that refuses everything.
        await post.request("other", to=[{"email": "b@x.example"}])
        await post.until(lambda: any(event.state == "sent" for event in post.events))
    assert {event.state for event in post.events if event.body.id != "other"} == {"failed"}
    assert len(relay.messages) == 1


async def test_what_is_added_and_removed_counts_soon(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.suppressions.LOOK_EVERY_S", 0.0)
    mine = suppressions(bus)
    async with sending(bus, relay):
        await post.request("first")
        await post.states(1)
        await mine.add("a@x.example", "by hand")
        await post.request("second")
        await post.states(2)
        assert await mine.remove("a@x.example")
        await post.request("third")
        assert await post.states(3) == [("first", "sent"), ("second", "failed"), ("third", "sent")]


async def test_a_lost_answer_is_uncertain_for_whom_the_mail_was_sent_to_alone(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    await suppressions(bus).add("b@x.example", "by hand")
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(3)
        await post.empty()
    states = {(who, event.state) for event in post.events for who in event.body.delivery_status}
    assert states == {("a@x.example", "uncertain"), ("a@x.example", "sent"), ("b@x.example", "failed")}


async def test_the_list_says_who_is_on_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.outbound.suppressions.READ_AT_ONCE", 2)
    mine = suppressions(bus)
    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(mine.add(f"n{n}@x.example", f"reason {n}"))
    assert not await mine.add("N0@x.example", "again")
    assert sorted([(one.email, one.reason) async for one in mine.all()]) == [
        (f"n{n}@x.example", f"reason {n}") for n in range(5)
    ]
    assert await mine.remove("n0@X.EXAMPLE")
    assert not await mine.remove("n0@x.example")
    assert len([one async for one in mine.all()]) == 4


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert suppression_key("a", "Jürgen@Müller.example") == suppression_key("a", "jürgen@xn--mller-kva.example")
    assert suppression_key("a", "x@y") != suppression_key("b", "x@y")


async def test_whoever_asks_while_the_list_is_read_waits_for_that(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await suppressions(bus).add("a@x.example", "by hand")
    mine, queued, looks = suppressions(bus), Bus.queued, list[str]()

    async def counted(self: Bus, stream: str, subject: str) -> list[str]:
        looks.append(subject)
        return await queued(self, stream, subject)

    monkeypatch.setattr(Bus, "queued", counted)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(mine.among(["a@x.example", "b@x.example"])) for _ in range(8)]
    assert [list(one.result()) for one in asked] == [["a@x.example"]] * 8
    assert len(looks) == 1


async def test_whoever_asks_while_nats_does_not_answer_hears_so_with_the_first(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other they would be at it for longer than a process has to end."""
    mine, looks, state = suppressions(bus), list[str](), Bus.stream_state
    asked_for, answer = asyncio.Event(), asyncio.Event()

    async def silent(_self: Bus, stream: str) -> str:
        looks.append(stream)
        asked_for.set()
        await answer.wait()
        raise Inward("no answer", where=stream)

    monkeypatch.setattr(Bus, "stream_state", silent)
    asked = [asyncio.create_task(mine.among(["a@x.example"])) for _ in range(8)]
    await asked_for.wait()
    answer.set()
    assert {type(one) for one in await asyncio.gather(*asked, return_exceptions=True)} == {Inward}
    assert len(looks) == 1
    monkeypatch.setattr(Bus, "stream_state", state)
    assert not await mine.among(["a@x.example"])
