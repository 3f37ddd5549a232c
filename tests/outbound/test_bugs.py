"""Requests that mailbus fails at: given up whole, and in nobody's way."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from service.bus import Bus, Job, MessageTooLarge
from service.clock import SystemClock
from service.contract import Problem, RequestProblems, SendRequest, encode, request_key
from service.imap import Pool, WritingSession
from service.observe import metrics
from service.outbound import Phase
from service.outbound.bugs import Bugs
from service.outbound.deliver import BUG_FAILURES
from service.outbound.mail import sent_copy
from service.outbound.places import Place
from service.outbound.sends import SendRecord
from service.outbound.settle import Settled, Settler, changed, schedule
from tests.outbound.conftest import LIMIT_S, Post, delivered, deliveries, idle_sender, sending, soon
from tests.outbound.test_sent import sent_mailbox
from tests.outbound.test_suspects import fetched, final, given_back
from tests.outbound.test_waiting import scheduled
from tests.servers.smtp import ScriptedRelay


@pytest.mark.fault("E14")
@pytest.mark.parametrize("later", [False, True])
async def test_a_request_that_mailbus_fails_at_names_its_recipients_and_is_dead_whole(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    await post.request("r", **({"sendAt": soon(3600)} if later else {}))
    if later:
        async with sending(bus, relay):
            await scheduled(post)
        sends, key = idle_sender(bus)._deliverer._sends, request_key("a", "r")
        record, revision = await sends.get(key)
        assert record is not None
        record = changed(record, next_at=SystemClock().now())
        await sends.put(key, record, revision)
        await schedule(bus, "a", key, record, SystemClock().now())
    # Its relay was away: that is no failure.
    await given_back(bus, times=BUG_FAILURES, due=later)

    def make_mail(*_: Any, **named: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("service.outbound.task.make_mail", make_mail)
    await fail_at(bus, await fetched(bus, due=later))
    assert await post.states(1) == [("r", "failed")]
    await post.until(lambda: len(post.dead) == 1)
    await post.empty()
    assert delivered(post.events[0]) == {"a@x.example": "no"}
    assert b'"r"' in post.dead[0].data


async def fail_at(bus: Bus, job: Job) -> None:
    """Handle a job until mailbus has failed at it so often that it goes on without."""
    deliverer, bugs = idle_sender(bus)._deliverer, metrics.BUGS._value.get()
    for _ in range(BUG_FAILURES - 1):
        with pytest.raises(KeyError):
            await deliverer.handle(job, Place(asyncio.Semaphore(1), deliveries()))
    await deliverer.handle(job, Place(asyncio.Semaphore(1), deliveries()))
    assert metrics.BUGS._value.get() == bugs + 1
    metrics.BUGS._value.set(bugs)


async def test_a_request_that_mailbus_fails_at_while_its_record_is_written_ends_no_work_of_its_account(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch, soon_again: None
) -> None:
    """It comes back, and finds the cancellation."""
    await post.request("r")
    await given_back(bus, times=BUG_FAILURES)
    say_first = Settler._say_first

    async def cancelled_meanwhile(*given: Any) -> None:
        await idle_sender(bus).waiting.cancel("r")
        await say_first(*given)

    def make_mail(*_: Any, **named: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Settler, "_say_first", cancelled_meanwhile)
    monkeypatch.setattr("service.outbound.task.make_mail", make_mail)
    await fail_at(bus, await fetched(bus))
    await idle_sender(bus)._deliverer.handle(await fetched(bus), Place(asyncio.Semaphore(1), deliveries()))
    assert await post.states(1) == [("r", "cancelled")]
    await post.empty()


@pytest.mark.fault("E14")
async def test_a_request_that_mailbus_fails_at_once_it_is_settled_keeps_its_outcome(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post.request("r")
    await given_back(bus)
    job = await fetched(bus)
    settled = encode(final(job))
    await bus.key_value(bus.subjects.sends).create(request_key("a", "r"), settled)

    async def resume(*_: Any, **named: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("service.outbound.ways.Ways._resume", resume)
    await fail_at(bus, job)
    await post.empty()
    entry = await bus.key_value(bus.subjects.sends).get(request_key("a", "r"))
    assert entry is not None
    assert (entry.value, post.dead, post.events) == (settled, [], [])


@pytest.mark.fault("E14")
async def test_a_request_that_mailbus_fails_at_between_intent_and_outcome_goes_out_no_more_than_three_times(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, soon_again: None
) -> None:
    """Each attempt comes as a message of its own: what failed at the one before counts."""
    bugs, shared = metrics.BUGS._value.get(), deliveries()

    def heard(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("service.outbound.lanes.Lanes.heard", heard)
    await post.request("r")
    async with asyncio.timeout(LIMIT_S):
        while not any(event.state == "failed" for event in post.events):
            with suppress(BaseExceptionGroup):
                async with sending(bus, relay, places=shared):
                    await post.until(lambda: any(event.state == "failed" for event in post.events))
    await post.until(lambda: bool(post.dead))
    await post.empty()
    assert len(relay.messages) == BUG_FAILURES
    assert delivered(post.events[-1]) == {"a@x.example": "unknown"}
    metrics.BUGS._value.set(bugs)


@pytest.mark.fault("E14")
async def test_a_verdict_of_one_request_alone_does_not_stop_the_others_and_counts_like_a_bug(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.2)
    bugs, settle = metrics.BUGS._value.get(), Settler.told

    async def told(self: Settler, key: str, *given: Any, **named: Any) -> Settled:
        if key == request_key("a", "bad"):
            raise MessageTooLarge("its state is too large", where="mail-sends")
        return await settle(self, key, *given, **named)

    monkeypatch.setattr("service.outbound.settle.Settler.told", told)
    async with sending(bus, relay):
        await post.request("bad")
        for n in range(3):
            await post.request(f"good{n}")
        assert sorted(await post.states(4)) == [("bad", "failed"), *((f"good{n}", "sent") for n in range(3))]
        await post.until(lambda: bool(post.dead))
        await post.empty()
    metrics.BUGS._value.set(bugs)


def test_failures_are_counted_by_request_and_for_a_bounded_number_of_them() -> None:
    bugs = Bugs()
    assert [bugs.count(key) for key in ("one", "other", "one", "one")] == [1, 1, 2, 3]
    bugs = Bugs(1)
    assert [bugs.count(key) for key in ("one", "other", "one")] == [1, 1, 1]


async def test_a_copy_that_cannot_be_made_leaves_the_mail_sent_and_stops_no_others(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(request: SendRequest, *rest: Any, **named: Any) -> bytes:
        if request.id == "r":
            raise RequestProblems([Problem("bcc", "the domain is not a name")])
        return sent_copy(request, *rest, **named)

    async def nowhere() -> WritingSession:
        raise NotImplementedError

    monkeypatch.setattr("service.outbound.attempt.sent_copy", made)
    async with sending(bus, relay, sent=sent_mailbox(bus, Pool(nowhere, SystemClock(), where="a"))):
        await post.request("r")
        await post.request("other")
        assert {state for _, state in await post.states(2)} == {"sent"}
        async with asyncio.timeout(LIMIT_S):
            while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 an empty stream rings no bell
                await asyncio.sleep(0.02)
    assert await bus.pending(bus.subjects.stream_later, bus.subjects.sent_copies("a")) == 1
    assert len(relay.messages) == 2


@pytest.mark.fault("E14")
async def test_what_was_refused_by_a_process_that_ended_before_it_said_so_has_its_letter_once(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    """Its letter was out before the outbox let it go. NATS knows a letter again for two minutes."""
    sends, key = idle_sender(bus)._deliverer._sends, request_key("a", "r")
    clock = SystemClock()
    now = clock.now()
    record = SendRecord("r", "", "", Phase.FINAL, 1, "", now, now, outbox=f"202611-{'0' * 64}", dead=True, account="a")
    await sends.put(key, record, 0)
    await schedule(bus, "a", key, record, now)
    async with sending(bus, relay):
        await post.empty()
    assert await bus.pending(bus.subjects.stream_dead, ">") == 0
