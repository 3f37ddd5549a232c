"""Requests that end their process: given up whole; what was in hand beside them is sent."""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta

import pytest

from service.bus import Bus, Conflict, Entry, Job
from service.clock import SystemClock
from service.contract import encode, request_key
from service.observe.steps import STOP_EXIT_CODE
from service.outbound.outbox import Bundle, Outbox
from service.outbound.pace import Pace
from service.outbound.places import Place
from service.outbound.retry import Phase, Said, Verdict, decide
from service.outbound.sends import SendRecord, new_record
from service.outbound.settle import changed, schedule
from service.outbound.status import statuses_of
from service.outbound.suspects import GIVEN_UP_AT, Suspects, _Mark, _name
from tests.outbound.child import begin_poisoned, ended
from tests.outbound.conftest import (
    LIMIT_S,
    Event,
    Post,
    delivered,
    deliveries,
    idle_sender,
    outbound_options,
    sending,
    soon,
)
from tests.outbound.test_waiting import scheduled
from tests.servers.forked import Forked
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay


async def fetched(bus: Bus, *, due: bool = False) -> Job:
    """The request in the queue, or whose time has come."""
    subjects = bus.subjects
    stream, subject = (subjects.stream_later, subjects.due("a")) if due else (subjects.stream_out, subjects.out("a"))
    puller = await bus.queue(stream).puller("due-a" if due else "out-a", subject)
    async with asyncio.timeout(LIMIT_S):
        while not (jobs := await puller.fetch(1)):
            pass
    await puller.close()
    return jobs[0]


async def given_back(bus: Bus, *, times: int = 1, due: bool = False) -> Job:
    """That, after so many deliveries of it."""
    for _ in range(times):
        job = await fetched(bus, due=due)
        await job.give_back()
    return job


async def left_mark(bus: Bus, job: Job, ended: int = GIVEN_UP_AT - 1) -> None:
    """As if processes had ended with it in hand, one more than `ended`: as many as it takes."""
    mark = _Mark("gone/1", ended)
    await bus.key_value(bus.subjects.sends).create(_name(job), encode(mark))


def problem_of(event: Event) -> str:
    assert isinstance(event.body.problems, list)
    return event.body.problems[0].message


def final(job: Job) -> SendRecord:
    return changed(new_record("r", job, job.stored_at), phase=Phase.FINAL, attempt=1)


@pytest.mark.fault("E14")
async def test_a_request_that_ends_its_process_is_given_up_whole_and_what_was_beside_it_is_sent(
    bus: Bus, post: Post, relay: ScriptedRelay, nats_server: NatsServer
) -> None:
    await post.request("bad", subject="poison")
    for n in range(3):
        await post.request(f"good{n}")
    where = (nats_server.url, bus.subjects.prefix, str(relay.port), "retry", "a")
    codes = []
    while not codes or codes[-1] == STOP_EXIT_CODE:
        codes.append(await ended(Forked(begin_poisoned, *where, env=os.environ)))
        assert len(codes) <= GIVEN_UP_AT + 2
    assert codes == [STOP_EXIT_CODE] * (GIVEN_UP_AT + 1) + [0]
    await post.until(lambda: len({event.body.id for event in post.events}) == 4 and len(post.dead) == 1)
    assert {event.body.id: event.state for event in post.events} == {
        "bad": "failed", "good0": "sent", "good1": "sent", "good2": "sent"
    }  # fmt: skip
    assert len(relay.messages) == 3
    assert post.dead[0].subject == bus.subjects.dead("poison")
    assert b'"bad"' in post.dead[0].data
    bucket = bus.key_value(bus.subjects.sends)
    assert {await bucket.get(key) for key in await bucket.keys() if key.startswith("begun")} == {None}


@pytest.mark.fault("E14", "E02")
async def test_a_request_that_is_given_up_after_its_intent_is_uncertain_and_then_failed(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    await post.request("r", to=[{"email": "a@x.example"}])
    job = await given_back(bus)
    record = new_record("r", job, job.stored_at)
    record.pending["a@x.example"] = ""
    await bus.key_value(bus.subjects.sends).create(request_key("a", "r"), encode(record))
    await left_mark(bus, job)
    async with sending(bus, relay):
        assert await post.states(2) == [("r", "uncertain"), ("r", "failed")]
        await post.until(lambda: len(post.dead) == 1)
        await post.empty()
    assert {event.body.undo_status for event in post.events} == {"final"}
    assert delivered(post.events[1]) == {"a@x.example": "unknown"}
    assert "processes ended" in problem_of(post.events[1])
    assert post.dead[0].data == job.payload
    assert not relay.messages


@pytest.mark.fault("E14")
async def test_what_was_stored_of_a_request_and_not_said_is_said_before_it_is_given_up(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    await post.request("r")
    job = await given_back(bus)
    record = changed(new_record("r", job, job.stored_at), pending={"a@x.example": ""}, phase=Phase.INTENT)
    said = {"a@x.example": Said(Verdict.PUT_OFF, "451 4.2.0 busy")}
    now = SystemClock().now()
    decision = decide(
        said, held=[], attempt=1, now=now, expires_at=now + timedelta(days=1), options=outbound_options(), chance=0.5
    )
    statuses = statuses_of(decision, key=request_key("a", "r"), id="r", message_ids="m", attempt=1, now=now)
    record = changed(record, phase=Phase.WAITING, attempt=1, next_at=decision.next_at, statuses=statuses)
    await bus.key_value(bus.subjects.sends).create(request_key("a", "r"), encode(record))
    await left_mark(bus, job)
    async with sending(bus, relay):
        assert await post.states(2) == [("r", "deferred"), ("r", "failed")]
        await post.empty()


@pytest.mark.fault("E13", "E14")
@pytest.mark.parametrize("buried", [False, True])
async def test_the_same_id_once_more_that_is_given_up_ends_nothing_of_the_first(
    bus: Bus, post: Post, relay: ScriptedRelay, buried: bool
) -> None:
    await post.request("r", sendAt=soon(3600))
    async with sending(bus, relay):
        await scheduled(post)
    await post.request("r", sendAt=soon(3600))
    job = await given_back(bus)
    settler, sends = idle_sender(bus)._deliverer._settler, idle_sender(bus)._deliverer._sends
    record, revision = await sends.get(request_key("a", "r"))
    assert record is not None
    if buried:
        await settler.bury(request_key("a", "r"), job, record, revision, "a bug")
    else:
        await settler.give_up(request_key("a", "r"), job, record, revision, "processes ended", job.payload)
    assert await sends.get(request_key("a", "r")) == (record, revision)
    assert (post.events, post.dead) == ([], [])
    await idle_sender(bus).waiting.cancel("r")


async def test_a_request_that_was_settled_before_it_is_given_up_keeps_its_outcome(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    await post.request("r")
    job = await given_back(bus)
    settled = encode(final(job))
    await bus.key_value(bus.subjects.sends).create(request_key("a", "r"), settled)
    await left_mark(bus, job)
    async with sending(bus, relay):
        await post.empty()
    entry = await bus.key_value(bus.subjects.sends).get(request_key("a", "r"))
    assert entry is not None
    assert (entry.value, post.dead, relay.messages) == (settled, [], [])


@pytest.mark.fault("E14")
@pytest.mark.parametrize("due", [False, True])
async def test_a_letter_that_its_process_ended_before_is_out_whole_and_nothing_is_left_of_the_request(
    bus: Bus, post: Post, relay: ScriptedRelay, due: bool
) -> None:
    await post.request("r")
    job = await given_back(bus)
    payload, key = job.payload, request_key("a", "r")
    name = await Outbox(bus.blobs(bus.subjects.outbox)).put(Bundle(key, payload, {}), stored_at=job.stored_at)
    record = changed(final(job), dead=True, outbox=name)
    await bus.key_value(bus.subjects.sends).create(key, encode(record))
    if due:
        await (await fetched(bus)).done()
        await schedule(bus, "a", key, record, SystemClock().now())
        job = await given_back(bus, due=True)
    await left_mark(bus, job, GIVEN_UP_AT)
    async with sending(bus, relay):
        await post.until(lambda: len(post.dead) == 1)
        await post.empty()
    assert (post.dead[0].subject, post.dead[0].data) == (bus.subjects.dead("poison"), payload)
    assert (post.events, relay.messages) == ([], [])


async def test_only_a_process_that_lives_no_more_counts_and_of_two_that_begin_one_does(bus: Bus, post: Post) -> None:
    await post.request("r")
    job = await given_back(bus)
    bucket = bus.key_value(bus.subjects.sends)

    async def lives(writer: str) -> bool:
        return writer == "slow/1"

    async def begun(writer: str) -> int:
        suspects = Suspects(bucket, writer=writer, lives=lives)
        found = await suspects.look(job)
        await suspects.begin(job, found)
        return found.ended

    assert [await begun(writer) for writer in ("slow/1", "slow/1", "other/1", "third/1", "other/1")] == [0, 0, 0, 1, 2]
    one, other = (Suspects(bucket, writer=writer, lives=lives) for writer in ("one/1", "other/1"))
    found = await one.look(job)
    await other.begin(job, await other.look(job))
    with pytest.raises(Conflict):
        await one.begin(job, found)
    await other.end(job)
    assert await begun("one/1") == 0


async def waits(task: "asyncio.Task[None]") -> bool:
    """Whether it still does once everybody had a turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_who_goes_alone_waits_for_the_others_and_they_for_him() -> None:
    shared, own = deliveries(4), asyncio.Semaphore(1)
    beside, suspect = Place(asyncio.Semaphore(1), shared), Place(own, shared)
    await beside.take()
    await suspect.take()
    async with asyncio.TaskGroup() as group:
        alone = group.create_task(suspect.alone())
        assert await waits(alone)
        later = group.create_task(Place(own, shared).take())
        assert await waits(later)
        beside.leave()
        await alone
        # Mails of the same job need no place, and go one after the other; another job waits, whoever's it is.
        first, second = suspect.another(), suspect.another()
        suspect.leave()
        await first.take()
        after = group.create_task(second.take())
        assert await waits(after)
        first.leave()
        await after
        assert await waits(later)
        suspect.end()
        suspect.end()


class Counted(Pace):
    """`turns`: how many mails took one."""

    turns = 0

    async def turn(self, ending: asyncio.Event) -> float | None:
        self.turns += 1
        return 0.0


async def goes(place: Place) -> None:
    await place.turn()
    await place.take()


async def test_mails_of_who_goes_alone_take_the_accounts_turns_and_its_places_once_others_are_let_in() -> None:
    shared, own, pace = deliveries(4), asyncio.Semaphore(1), Counted(0.0, SystemClock())
    suspect = Place(own, shared, pace=pace)
    alone = await suspect.alone()
    assert alone is not None
    suspect.leave()
    first, second, third = suspect.another(), suspect.another(), suspect.another()
    await goes(first)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(goes(second))
        assert await waits(waiting)
        alone.end()
        await waiting
        assert own.locked()
        after = group.create_task(goes(third))
        assert await waits(after)
        second.leave()
    assert pace.turns == 3


async def test_once_somebody_was_alone_for_as_long_as_may_be_nobody_is_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.outbound.places.ALONE_S", 0.01)
    shared = deliveries(2)
    slow, waiting, later = (Place(asyncio.Semaphore(1), shared) for _ in range(3))
    alone = await slow.alone()
    assert alone is not None
    async with asyncio.timeout(LIMIT_S):
        assert await waiting.alone() is None
        await Place(asyncio.Semaphore(1), shared).take()
    slow.end()
    assert await later.alone() is None


async def test_who_is_not_let_alone_now_comes_again_and_is_no_more_suspect_for_it(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.deliver.NOT_ALONE_S", 0.1)
    await post.request("r")
    await left_mark(bus, await given_back(bus), ended=GIVEN_UP_AT - 2)
    places = deliveries()
    await places.close()
    places.open(stay_s=0.5)
    async with sending(bus, relay, places=places):
        assert await post.states(1) == [("r", "sent")]
        await post.empty()


@pytest.mark.fault("E14")
async def test_what_ends_the_process_later_is_not_blamed_on_who_was_alone_before(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.places.ALONE_S", 0.01)
    relay.script.hold = asyncio.Event()
    await post.request("r")
    job = await given_back(bus)
    await left_mark(bus, job, ended=GIVEN_UP_AT - 2)
    async with sending(bus, relay):
        await relay.received(1)
        async with asyncio.timeout(LIMIT_S):
            while await bus.key_value(bus.subjects.sends).get(_name(job)) is not None:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        assert not post.events
        relay.script.hold.set()
        assert await post.states(1) == [("r", "sent")]
        await post.empty()


async def test_who_goes_alone_is_so_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.outbound.places.ALONE_S", 0.05)
    shared = deliveries(2)
    suspect = Place(asyncio.Semaphore(1), shared)
    await suspect.alone()
    async with asyncio.timeout(LIMIT_S):
        await Place(asyncio.Semaphore(1), shared).take()
    suspect.end()


async def test_who_is_cancelled_while_he_waits_to_be_alone_lets_the_others_go_on() -> None:
    shared = deliveries(2)
    beside, suspect = (Place(asyncio.Semaphore(1), shared) for _ in range(2))
    await beside.take()
    waiting = asyncio.create_task(suspect.alone())
    assert await waits(waiting)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    suspect.end()
    async with asyncio.timeout(LIMIT_S):
        await Place(asyncio.Semaphore(1), shared).take()


@pytest.mark.fault("E02")
async def test_a_job_that_another_has_overtaken_leaves_the_attempt_alone(bus: Bus, post: Post) -> None:
    """Its process slept before the intent; whoever got the job next stands at the relay."""
    await post.request("r")
    job = await fetched(bus)
    under_way = encode(changed(new_record("r", job, job.stored_at), owner="another", attempt=1))
    sends = bus.key_value(bus.subjects.sends)
    revision = await sends.create(request_key("a", "r"), under_way)
    place = Place(asyncio.Semaphore(1), deliveries())
    await idle_sender(bus)._deliverer.handle(job, place)
    assert (await sends.get(request_key("a", "r"))) == Entry(under_way, revision)
