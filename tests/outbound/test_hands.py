"""Jobs in hand and their places at relays: who is slow holds his own only, and what is done stays done."""

import asyncio
from collections.abc import Iterable
from math import inf

import pytest

from service.bus import Bus, Job
from service.bus.queue import MAX_ACK_PENDING
from service.outbound import Bundle, Limit, Outbox
from service.outbound.lanes import Lanes
from service.outbound.places import Place
from service.outbound.sender import IN_HAND_REFILL
from tests.outbound.conftest import LIMIT_S, Post, deliveries, sending
from tests.servers.smtp import RelayMaker, ScriptedRelay


async def test_a_place_is_given_back_once_whoever_leaves_first() -> None:
    own, shared = asyncio.Semaphore(1), deliveries(1)
    place = Place(own, shared)
    await place.take()
    assert own.locked()
    assert shared._places.locked()
    place.leave()
    place.leave()
    again = Place(own, shared)
    await again.take()
    assert (own.locked(), shared._places.locked()) == (True, True)


async def test_who_is_cancelled_while_waiting_for_the_second_gives_the_first_back() -> None:
    own, shared = asyncio.Semaphore(1), deliveries(0)
    waiting = asyncio.create_task(Place(own, shared).take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not own.locked()


@pytest.mark.fault("E05")
async def test_relays_that_take_their_time_do_not_keep_other_accounts_from_sending(
    bus: Bus, make_relay: RelayMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One account's mails hold every place of the process for ever, one relay accepts: the other account's mails go."""
    monkeypatch.setattr("service.outbound.places.SLOW_S", 0.2)
    slow, quick = await make_relay(), await make_relay()
    slow.script.hold = asyncio.Event()
    places = deliveries(4)
    held, other = Post(bus, account="a"), Post(bus, account="b")
    await other.watch()
    async with (
        sending(bus, slow, places=places, smtp={"connections": 4}),
        sending(bus, quick, places=places, account="b"),
    ):
        for n in range(12):
            await held.request(f"slow{n}")
        await slow.received(4)
        for n in range(20):
            await other.request(f"quick{n}")
        await other.states(20)
        assert {event.state for event in other.events} == {"sent"}
        assert len(slow.messages) == 4
        slow.script.hold.set()
        slow.script.hold = None


async def test_jobs_that_have_not_begun_go_back_when_the_sender_stops(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay, smtp={"connections": 1}):
        for n in range(5):
            await post.request(f"r{n}")
        await relay.received(1)
        asyncio.get_running_loop().call_later(0.2, relay.script.hold.set)
    # The second had a place, and waited for the first one's connection.
    assert len(relay.messages) == 1
    relay.script.hold = None
    async with sending(bus, relay):
        await post.states(5)
        await post.empty()
    assert sorted(event.body.id for event in post.events) == [f"r{n}" for n in range(5)]
    assert len(relay.messages) == 5


async def test_a_request_whose_acknowledgement_is_lost_is_neither_sent_nor_told_again(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, soon_again: None
) -> None:
    let_go = Job.done
    seen: list[int] = []

    async def lost_once(job: Job) -> None:
        seen.append(job.delivered)
        if job.delivered > 1:
            await let_go(job)

    monkeypatch.setattr(Job, "done", lost_once)
    async with sending(bus, relay):
        await post.request("r")
        await post.empty()
    assert seen == [1, 2]
    assert [(event.body.id, event.state) for event in post.events] == [("r", "sent")]
    assert len(relay.messages) == 1


async def test_an_urgent_request_is_taken_however_many_others_are_in_hand(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    for n in range(40):
        await post.request(f"mailing{n}")
    relay.script.hold = asyncio.Event()
    subject = bus.subjects.out_urgent("a")
    async with sending(bus, relay, smtp={"connections": 1}) as sender, asyncio.timeout(LIMIT_S):
        while len(sender._hands) < IN_HAND_REFILL:  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)
        await bus.publish(subject, b'{"id": "urgent", "to": [{"email": "now@x.example"}], "text": "t"}')
        while not sender._hands.count(subject):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        # None of those that were in hand is through.
        assert not post.events
        relay.script.hold.set()
        await post.states(41)
        await post.empty()


@pytest.mark.fault("E05")
async def test_who_comes_back_for_a_domains_turn_is_not_read_before_there_is_one(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    asked_again = 0
    get, ask = Outbox.get, Lanes.ask

    async def counted(outbox: Outbox, name: str) -> Bundle:
        read.append(name)
        return await get(outbox, name)

    def asked(lanes: Lanes, recipients: Iterable[str], *, waited: bool, within_s: float = inf) -> float:
        nonlocal asked_again
        wait_s = ask(lanes, recipients, waited=waited, within_s=within_s)
        asked_again += waited and wait_s > 0
        return wait_s

    monkeypatch.setattr(Outbox, "get", counted)
    monkeypatch.setattr(Lanes, "ask", asked)
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay, domains={"slow.example": Limit(at_once=1)}):
        for n in range(2):
            await post.request(f"r{n}", to=[{"email": "a@slow.example"}])
        async with asyncio.timeout(LIMIT_S):
            while not asked_again:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        assert (len(relay.messages), read) == (1, [])
        relay.script.hold.set()
        await post.states(2)
        await post.empty()


@pytest.mark.fault("E03")
async def test_the_same_id_again_and_again_keeps_no_other_request_from_the_relay(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    """More repeats than NATS hands out at once, while the first one's mail waits for its answer."""
    relay.script.hold = asyncio.Event()
    repeats = MAX_ACK_PENDING + 10
    async with sending(bus, relay):
        await post.request("first")
        await relay.received(1)
        for _ in range(repeats):
            await post.request("first")
        await post.request("other", to=[{"email": "other@x.example"}])
        await relay.received(2)
        assert not post.events
        relay.script.hold.set()
        await post.states(2 + repeats)
        await post.empty()
    assert {(event.body.id, event.state) for event in post.events} == {("first", "sent"), ("other", "sent")}
    assert len({event.id for event in post.events}) == 2
    assert [mail.rcpt_to for mail in relay.messages] == [["a@x.example"], ["other@x.example"]]
