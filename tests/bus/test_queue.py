"""Work queues: pulled, acknowledged, given back, scheduled, cancelled. Real server."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.bus import Bus, Job, MessageTooLarge, Puller
from service.bus.errors import js_api
from service.errors import Transient
from tests.bus.conftest import until
from tests.servers.nats import NatsServer


async def pull(puller: Puller, count: int, limit_s: float = 15) -> list[Job]:
    """Exactly so many jobs, within a limit."""
    jobs: list[Job] = []
    async with asyncio.timeout(limit_s):
        while len(jobs) < count:
            jobs += await puller.fetch(count - len(jobs))
    return jobs


async def test_a_request_is_pulled_once_and_gone_after_its_acknowledgement(bus: Bus) -> None:
    queue = bus.queue(bus.subjects.stream_out)
    seqs = [await bus.publish(bus.subjects.out("a"), b"%d" % n, {"X-N": str(n)}) for n in range(3)]
    await bus.publish(bus.subjects.out("b"), b"another account's")
    puller = await queue.puller("out-a", bus.subjects.out("a"))
    jobs = await pull(puller, 3)
    assert [(job.payload, job.seq, job.headers["X-N"], job.delivered) for job in jobs] == [
        (b"%d" % n, seq, str(n), 1) for n, seq in enumerate(seqs)
    ]
    assert all(job.subject == bus.subjects.out("a") for job in jobs)
    assert abs(jobs[0].stored_at - datetime.now(UTC)) < timedelta(minutes=1)
    for job in jobs:
        await job.in_progress()
        await job.ack()
    assert await puller.fetch(10) == []
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("a")) == 0
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1
    await puller.close()


async def test_what_is_done_is_gone_without_a_word_from_the_server(own_bus: Bus) -> None:
    subject = own_bus.subjects.out("a")
    await own_bus.publish(subject, b"x")
    puller = await own_bus.queue(own_bus.subjects.stream_out).puller("out-a", subject)
    (job,) = await pull(puller, 1)
    await job.done()
    async with asyncio.timeout(20):
        while await own_bus.pending(own_bus.subjects.stream_out, subject):  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)
    await puller.close()


async def test_what_is_given_back_comes_again(bus: Bus) -> None:
    await bus.publish(bus.subjects.out("a"), b"x")
    puller = await bus.queue(bus.subjects.stream_out).puller("out-a", bus.subjects.out("a"))
    [job] = await pull(puller, 1)
    await job.give_back()
    [again] = await pull(puller, 1)
    assert (again.seq, again.delivered) == (job.seq, 2)
    await again.give_back(0.2)
    [later] = await pull(puller, 1)
    assert later.delivered == 3


async def test_what_is_not_acknowledged_comes_again_to_the_next_owner(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.queue.ACK_WAIT_S", 0.5)
    await bus.publish(bus.subjects.out("a"), b"x")
    queue = bus.queue(bus.subjects.stream_out)
    first = await queue.puller("out-a", bus.subjects.out("a"))
    await pull(first, 1)
    second = await queue.puller("out-a", bus.subjects.out("a"))
    [job] = await pull(second, 1)
    assert job.delivered == 2


async def test_a_consumer_that_ended_is_transient_not_an_empty_queue(bus: Bus) -> None:
    puller = await bus.queue(bus.subjects.stream_out).puller("out-a", bus.subjects.out("a"))
    await js_api(bus.nc, f"CONSUMER.DELETE.{bus.subjects.stream_out}.out-a")
    with pytest.raises(Transient):
        await puller.fetch(1)


async def test_a_consumer_of_another_subject_is_made_anew_and_hands_over_what_is_older(bus: Bus) -> None:
    """With its filter changed it would go on behind what it has passed."""
    queue = bus.queue(bus.subjects.stream_out)
    await bus.publish(bus.subjects.out("b"), b"older")
    await bus.publish(bus.subjects.out("a"), b"x")
    first = await queue.puller("one", bus.subjects.out("a"))
    await pull(first, 1)
    await first.close()
    puller = await queue.puller("one", bus.subjects.out("b"))
    [job] = await pull(puller, 1)
    assert job.payload == b"older"
    await puller.close()


async def test_a_consumer_is_shared_by_those_who_make_it_alike(bus: Bus) -> None:
    queue = bus.queue(bus.subjects.stream_out)
    await bus.publish(bus.subjects.out("a"), b"x")
    first = await queue.puller("out-a", bus.subjects.out("a"))
    [job] = await pull(first, 1)
    second = await queue.puller("out-a", bus.subjects.out("a"))
    assert await second.fetch(1) == []
    await job.ack()
    assert await first.fetch(1) == []


async def test_a_schedule_fires_on_its_target_and_survives_a_kill(own_nats: NatsServer, own_bus: Bus) -> None:
    subjects = own_bus.subjects
    queue = own_bus.queue(subjects.stream_later)
    at = datetime.now(UTC) + timedelta(seconds=3)
    await queue.schedule(subjects.later("a", "k"), subjects.due("a"), at, b"later", {"Mail-Attempt": "2"})
    assert await own_bus.pending(subjects.stream_later, subjects.due("a")) == 0
    await own_nats.restart()
    await until(lambda: not own_bus.connected)
    await until(lambda: own_bus.connected)
    puller = await queue.puller("due-a", subjects.due("a"))
    [job] = await pull(puller, 1)
    assert (job.payload, job.headers["Mail-Attempt"]) == (b"later", "2")
    assert datetime.now(UTC) >= at - timedelta(milliseconds=50)
    await job.ack()
    assert await own_bus.pending(subjects.stream_later, ">") == 0


@pytest.mark.fault("E12")
async def test_a_second_schedule_replaces_the_first_a_past_one_fires_at_once(bus: Bus) -> None:
    queue = bus.queue(bus.subjects.stream_later)
    later, due = bus.subjects.later("a", "k"), bus.subjects.due("a")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await queue.schedule(later, due, tomorrow, b"1", {})
    await queue.schedule(later, due, tomorrow - timedelta(days=2), b"2", {})
    puller = await queue.puller("due-a", due)
    [job] = await pull(puller, 1)
    assert job.payload == b"2"
    await job.ack()
    assert await bus.pending(bus.subjects.stream_later, ">") == 0


@pytest.mark.fault("E12")
async def test_a_cancelled_schedule_never_fires(bus: Bus) -> None:
    queue = bus.queue(bus.subjects.stream_later)
    later, due = bus.subjects.later("a", "k"), bus.subjects.due("a")
    await queue.schedule(later, due, datetime.now(UTC) + timedelta(days=1), b"1", {})
    assert await queue.cancel(later) == 1
    assert await queue.cancel(later) == 0
    assert await bus.pending(bus.subjects.stream_later, ">") == 0


async def test_the_bell_rings_with_the_headers_of_what_was_queued(bus: Bus) -> None:
    bell = await bus.nc.subscribe(bus.subjects.bell("a"))
    await bus.nc.flush()
    await bus.publish(bus.subjects.out("a"), b"body", {"X": "1"})
    rung = await bell.next_msg(timeout=5)
    assert rung.data == b""
    assert (rung.headers or {})["X"] == "1"
    past = datetime.now(UTC) - timedelta(seconds=1)
    queue = bus.queue(bus.subjects.stream_later)
    await queue.schedule(bus.subjects.later("a", "k"), bus.subjects.due("a"), past, b"", {})
    assert (await bell.next_msg(timeout=5)).subject == bus.subjects.bell("a")


async def test_a_status_is_stored_once_by_its_id(bus: Bus) -> None:
    subject = bus.subjects.status("a", "sent")
    first = await bus.publish(subject, b"{}", {"Nats-Msg-Id": "x"})
    assert await bus.publish(subject, b"{}", {"Nats-Msg-Id": "x"}) == first
    assert await bus.pending(bus.subjects.stream_status, subject) == 1


@pytest.mark.fault("D12")
async def test_a_message_that_nats_would_not_take_is_refused_before_it_is_sent(bus: Bus) -> None:
    with pytest.raises(MessageTooLarge):
        await bus.publish(bus.subjects.out("a"), b"x" * bus.max_payload)
    assert bus.connected


async def test_nobody_who_stores_it_is_transient(bus: Bus) -> None:
    with pytest.raises(Transient):
        await bus.publish(f"{bus.subjects.prefix}.nowhere", b"")


async def test_no_more_is_handed_over_than_was_asked_for(bus: Bus) -> None:
    puller = await bus.queue(bus.subjects.stream_out).puller("out-a", bus.subjects.out("a"))
    await bus.publish(bus.subjects.out("a"), b"0")
    assert [job.payload for job in await puller.fetch(10)] == [b"0"]  # nine more are still asked for
    for n in range(1, 6):
        await bus.publish(bus.subjects.out("a"), b"%d" % n)
    found: list[bytes] = []
    async with asyncio.timeout(15):
        while len(found) < 5:
            jobs = await puller.fetch(2)
            assert len(jobs) <= 2
            found += [job.payload for job in jobs]
    assert found == [b"%d" % n for n in range(1, 6)]
    assert await puller.fetch(2) == []


async def test_what_was_pulled_and_not_fetched_is_the_next_ones_at_once(bus: Bus) -> None:
    queue, subject = bus.queue(bus.subjects.stream_out), bus.subjects.out("a")
    puller = await queue.puller("out-a", subject)
    await bus.publish(subject, b"0")
    (first,) = await puller.fetch(10)  # nine more are still asked for
    for n in range(1, 6):
        await bus.publish(subject, b"%d" % n)
    await until(lambda: len(puller._jobs) == 5)
    await puller.close()
    another = await queue.puller("out-a", subject)
    # Long before one comes back that is not acknowledged.
    assert sorted(job.payload for job in await pull(another, 5)) == [b"%d" % n for n in range(1, 6)]
    await first.ack()
    await another.close()
