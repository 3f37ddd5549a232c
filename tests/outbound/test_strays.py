"""Requests for accounts that nobody has: each ends with a status and a dead letter, and in nobody's way."""

import asyncio
import json
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest

from service.bus import Bus, Job
from service.clock import SystemClock
from service.contract import encode, request_key
from service.errors import Transient
from service.observe import metrics
from service.outbound import Bundle, Outbox, Phase, Strays
from service.outbound.sends import SendRecord, new_record
from service.outbound.settle import changed, schedule
from tests.outbound.conftest import LIMIT_S, Post, idle_sender, sending
from tests.servers.smtp import ScriptedRelay


def strays(bus: Bus, *, agreed: bool = True, coming: str = "") -> Strays:
    async def is_coming(account: str) -> bool:
        return account == coming

    return Strays(bus, SystemClock(), sends=lambda account: account == "a", decides=lambda _: agreed, coming=is_coming)


@pytest.mark.fault("E14", "G11")
async def test_a_request_for_an_unknown_account_fails_and_lies_whole_in_the_dead_letters(bus: Bus, post: Post) -> None:
    post.account = "nobody"
    await post.request("r1")
    await strays(bus).refuse_all()
    assert await post.states(1) == [("r1", "failed")]
    (event,) = post.events
    assert event.body.undo_status == "final"
    assert isinstance(event.body.problems, list)
    assert [problem.field for problem in event.body.problems] == ["account"]
    assert set(event.body.delivery_status) == {"a@x.example"}
    await post.until(lambda: bool(post.dead))
    (dead,) = post.dead
    assert dead.subject == f"{bus.subjects.prefix}.dead.unknown-account"
    assert json.loads(dead.data)["id"] == "r1"
    await post.empty()


@pytest.mark.fault("E14")
async def test_what_waits_for_another_try_ends_once_its_time_comes_and_its_account_is_gone(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.data = ["451 4.7.1 later"]
    async with sending(bus, relay, account="gone", retry_first_s=3600):
        post.account = "gone"
        await post.request("r1")
        assert await post.states(1) == [("r1", "deferred")]
        async with asyncio.timeout(LIMIT_S):
            while not await bus.pending(bus.subjects.stream_later, bus.subjects.later("gone", "*")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    key = request_key("gone", "r1")
    record, _ = await idle_sender(bus)._deliverer._sends.get(key)
    assert record is not None
    await schedule(bus, "gone", key, record, SystemClock().now())
    await its_time(bus, "gone")
    await strays(bus).refuse_all()
    assert (await post.states(2))[1:] == [("r1", "failed")]
    assert [problem.field for problem in post.events[1].body.problems or []] == ["account"]
    await post.until(lambda: bool(post.dead))
    assert post.dead[0].subject == bus.subjects.dead("unknown-account")
    assert json.loads(post.dead[0].data)["id"] == "r1"
    # Nothing waits, and what was kept of it is gone.
    await post.empty()


async def its_time(bus: Bus, account: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await bus.pending(bus.subjects.stream_later, bus.subjects.due(account)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.fault("E02", "E14")
@pytest.mark.parametrize("later", [False, True])
async def test_of_an_account_that_is_gone_whose_dot_may_be_out_is_uncertain_and_with_who_else_waits_has_failed(
    bus: Bus, post: Post, later: bool
) -> None:
    post.account = "gone"
    await post.request("r1")
    puller = await bus.queue(bus.subjects.stream_out).puller("out-gone", bus.subjects.out("gone"))
    (job,) = await puller.fetch(1)
    key = request_key("gone", "r1")
    record = changed(
        new_record("r1", job, job.stored_at),
        attempt=2 if later else 1,
        pending={"a@x.example": "", "b@x.example": "451 4.7.1 later"},
        trying=["a@x.example"],
    )
    await bus.key_value(bus.subjects.sends).create(key, encode(record))
    if later:
        await job.ack()
        await schedule(bus, "gone", key, changed(record, attempt=1), SystemClock().now())
        await its_time(bus, "gone")
    else:
        await job.give_back()
    await puller.close()
    await strays(bus).refuse_all()
    assert sorted(await post.states(2)) == [("r1", "failed"), ("r1", "uncertain")]
    assert {event.state: set(event.body.delivery_status) for event in post.events} == {
        "uncertain": {"a@x.example"}, "failed": {"a@x.example", "b@x.example"}
    }  # fmt: skip
    assert {event.body.undo_status for event in post.events} == {"final"}
    await post.until(lambda: bool(post.dead))
    await post.empty()


async def in_hand(bus: Bus, post: Post) -> tuple[str, Job]:
    """A request of an account's, its key and its job, which goes back to the queue."""
    await post.request("r1")
    puller = await bus.queue(bus.subjects.stream_out).puller(f"out-{post.account}", bus.subjects.out(post.account))
    (job,) = await puller.fetch(1)
    await job.give_back()
    await puller.close()
    return request_key(post.account, "r1"), job


async def kept(bus: Bus, key: str, job: Job, record: SendRecord) -> SendRecord:
    """Its record as it is stored, and the request in the outbox."""
    name = await Outbox(bus.blobs(bus.subjects.outbox)).put(Bundle(key, job.payload, {}), stored_at=job.stored_at)
    record = changed(record, outbox=name)
    await bus.key_value(bus.subjects.sends).create(key, encode(record))
    return record


async def lies_in_the_dead_letters(bus: Bus, post: Post) -> None:
    await post.until(lambda: bool(post.dead))
    assert {dead.subject for dead in post.dead} == {bus.subjects.dead("unknown-account")}
    assert {json.loads(dead.data)["id"] for dead in post.dead} == {"r1"}


@pytest.mark.fault("E02", "E14")
@pytest.mark.parametrize("scheduled", [False, True])
async def test_what_was_put_off_by_a_sender_that_ended_with_it_in_hand_has_failed(
    bus: Bus, post: Post, scheduled: bool
) -> None:
    """Its first attempt is stored, its job not acknowledged, its schedule set or not; then the account is gone."""
    post.account = "gone"
    key, job = await in_hand(bus, post)
    record = changed(
        new_record("r1", job, job.stored_at + timedelta(days=1)),
        attempt=1,
        phase=Phase.WAITING,
        pending={"a@x.example": "451 4.7.1 later"},
        next_at=job.stored_at + timedelta(hours=1),
    )
    record = await kept(bus, key, job, record)
    if scheduled:
        await schedule(bus, "gone", key, record, SystemClock().now() + timedelta(hours=1))
    await strays(bus).refuse_all()
    assert await post.states(1) == [("r1", "failed")]
    assert post.events[0].body.undo_status == "final"
    await lies_in_the_dead_letters(bus, post)
    await post.empty()


@pytest.mark.fault("E02", "E14")
@pytest.mark.parametrize("step", ["dead.before", "status.before", "outbox.free"])
async def test_a_stray_that_was_refused_by_a_process_that_ended_is_told_and_lies_in_the_dead_letters(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch, soon_again: None, step: str
) -> None:
    post.account = "gone"
    key, job = await in_hand(bus, post)
    record = changed(
        new_record("r1", job, job.stored_at), attempt=1, pending={"a@x.example": "", "b@x.example": "451 later"},
        trying=["a@x.example"],
    )  # fmt: skip
    await kept(bus, key, job, record)

    def ending(name: str) -> None:
        if name == step:
            raise Transient("ended")

    with monkeypatch.context() as patch:
        for file in ("settle", "status", "outbox"):
            patch.setattr(f"service.outbound.{file}.step", ending)
        with pytest.raises(Transient):
            await strays(bus).refuse_all()
    async with asyncio.timeout(LIMIT_S):
        while await bus.pending(bus.subjects.stream_out, ">"):
            await strays(bus).refuse_all()
    await post.states(2)
    assert sorted({(event.state, *event.body.delivery_status) for event in post.events}) == [
        ("failed", "a@x.example", "b@x.example"), ("uncertain", "a@x.example")
    ]  # fmt: skip
    await lies_in_the_dead_letters(bus, post)
    await post.empty()


async def test_a_stray_comes_to_its_end_by_the_bell(bus: Bus, post: Post) -> None:
    running = asyncio.create_task(strays(bus).run())
    post.account = "nobody"
    await post.until(lambda: True)
    await post.request("r1")
    assert await post.states(1) == [("r1", "failed")]
    running.cancel()


async def test_the_same_stray_twice_has_one_status(bus: Bus, post: Post) -> None:
    post.account = "nobody"
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.empty()
    assert {event.id for event in post.events} == {post.events[0].id}


async def test_what_is_no_request_and_no_account_is_buried_without_a_status(bus: Bus, post: Post) -> None:
    dead = metrics.DEAD.labels(reason="unknown-account")._value
    before = dead.get()
    post.account = "a" * 65
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.until(lambda: bool(post.dead))
    await post.empty()
    assert post.events == []
    assert dead.get() == before + 1


@pytest.mark.fault("G11")
async def test_names_that_no_account_can_have_come_one_after_another_and_all_end(bus: Bus, post: Post) -> None:
    """The last was queued before the one that is refused first."""
    for name in ("shöp", "b@x", "c@x"):
        await bus.publish(bus.subjects.out(name), b'{"id": "r1"}')
    await strays(bus).refuse_all()
    await bus.publish(bus.subjects.out("b@x"), b'{"id": "r2"}')
    await strays(bus).refuse_all()
    await post.until(lambda: len(post.dead) == 4)
    await post.empty()


@pytest.mark.fault("G11")
async def test_what_is_queued_for_nobody_and_an_account_called_stray_do_not_meet(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    there = Strays(bus, SystemClock(), sends="stray".__eq__, decides=lambda _: True, coming=AsyncMock())
    async with sending(bus, relay, account="stray"):
        post.account = "stray"
        await post.request("r1")
        await bus.publish(bus.subjects.out("b@x"), b'{"id": "r2", "to": [{"email": "b@x.example"}], "text": "t"}')
        await there.refuse_all()
        await post.request("r3")
        await post.states(2)
        await post.until(lambda: bool(post.dead))
        await post.empty()
    assert sorted((event.body.id, event.state) for event in post.events) == [("r1", "sent"), ("r3", "sent")]
    assert [json.loads(dead.data)["id"] for dead in post.dead] == ["r2"]


@pytest.mark.fault("G11")
@pytest.mark.parametrize("length", [200, 3900, 4060])
async def test_a_name_of_any_length_that_nats_takes_is_buried(bus: Bus, post: Post, length: int) -> None:
    subject = f"{bus.subjects.prefix}.out.".encode().ljust(length, b"x")
    await bus.nc._send_command(b"PUB %b 2\r\n{}\r\n" % subject)
    await bus.nc.flush()
    await strays(bus).refuse_all()
    await post.until(lambda: bool(post.dead))
    await post.empty()
    assert bus.connected


@pytest.mark.fault("G11")
@pytest.mark.parametrize("wildcard", ["*", ">"])
async def test_a_wildcard_as_an_account_touches_nobody_elses_requests(
    bus: Bus, post: Post, relay: ScriptedRelay, wildcard: str
) -> None:
    await post.request("r1")
    subject = f"{bus.subjects.prefix}.out.{wildcard}".encode()
    await bus.nc._send_command(b"PUB %b 2\r\n{}\r\n" % subject)
    await bus.nc.flush()
    await strays(bus).refuse_all()
    assert post.events == []
    async with sending(bus, relay):
        assert await post.states(1) == [("r1", "sent")]
    async with asyncio.timeout(20):
        while await bus.pending(bus.subjects.stream_out, bus.subjects.out("a")):  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)
    assert await bus.pending(bus.subjects.stream_out, ">") == 1


async def test_known_accounts_are_left_alone(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await post.request("r1")
    await strays(bus).refuse_all()
    async with sending(bus, relay):
        assert await post.states(1) == [("r1", "sent")]


async def test_while_the_processes_know_different_accounts_nothing_is_refused(bus: Bus, post: Post) -> None:
    post.account = "perhaps-of-another"
    await post.request("r1")
    await strays(bus, agreed=False).refuse_all()
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1
    assert post.events == []


async def test_an_account_that_was_added_and_is_not_heard_of_yet_is_no_stray(bus: Bus, post: Post) -> None:
    post.account = "new"
    await post.request("r1")
    await strays(bus, coming="new").refuse_all()
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1
    assert post.events == []


async def test_what_is_queued_for_an_account_that_is_added_while_others_are_refused_is_left_to_it(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.strays.TOGETHER", 2)
    post.account = "new"
    for n in range(6):
        await post.request(f"r{n}")

    async def is_coming(_account: str) -> bool:
        return bool(await bus.pending(bus.subjects.stream_status, ">"))

    few = Strays(bus, SystemClock(), sends=lambda _: False, decides=lambda _: True, coming=is_coming)
    await few.refuse_all()
    assert await post.states(2) == [("r0", "failed"), ("r1", "failed")]
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("new")) == 4


async def test_urgent_requests_are_their_accounts(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await bus.publish(bus.subjects.out_urgent("unknown"), b'{"id": "r", "to": [{"email": "a@x.example"}], "text": "t"}')
    await bus.publish(bus.subjects.out_urgent("a"), b'{"id": "r", "to": [{"email": "a@x.example"}], "text": "t"}')
    await strays(bus).refuse_all()
    async with sending(bus, relay):
        await post.states(2)
        await post.empty()
    assert sorted((event.headers["ce-source"].rpartition("/")[2], event.state) for event in post.events) == [
        ("a", "sent"),
        ("unknown", "failed"),
    ]
