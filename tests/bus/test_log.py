"""Fenced commits to the log: one or many, landed or refused. Real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.bus import Bus, FenceRefused, MessageTooLarge, OutMessage
from service.bus.batch import BATCH_LIMIT_MESSAGES
from service.bus.errors import ApiError, js_api
from service.bus.frames import FENCE
from service.bus.guard import header_size
from service.bus.log import FENCE_SUBJECT
from service.errors import Transient
from service.observe import metrics
from tests.bus.conftest import mailbox_filter, messages, opened, payloads
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way


async def test_the_first_commit_of_a_mailbox_has_fence_zero_and_the_tail_is_the_next_fence(bus: Bus) -> None:
    subject = mailbox_filter(bus)
    assert await bus.log.tail(subject) is None
    first = await bus.log.commit(messages(bus, 1), filter_subject=subject, fence=0)
    last = await bus.log.commit(messages(bus, 5, first=1), filter_subject=subject, fence=first)
    tail = await bus.log.tail(subject)
    assert tail is not None
    assert (tail.seq, tail.payload, tail.headers["ce-id"]) == (last, b"5", "INBOX-5")
    assert await payloads(bus, subject) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    got = await bus.log.get(first)
    assert got is not None
    assert got.payload == b"0"
    assert await bus.log.get(last + 1) is None
    bounds = await bus.log.bounds()
    assert (bounds.first_seq, bounds.last_seq) == (first, last)


@pytest.mark.fault("D08")
async def test_a_log_that_was_removed_is_said_with_what_brings_it_back(own_bus: Bus) -> None:
    await js_api(own_bus.nc, f"STREAM.DELETE.{own_bus.subjects.stream_in}")
    with pytest.raises(Transient) as raised:
        await own_bus.log.tail(mailbox_filter(own_bus))
    assert "stream not found" in raised.value.what
    assert raised.value.where == own_bus.subjects.stream_in
    assert "start mailbus anew" in raised.value.remedy


async def test_the_messages_of_a_batch_stand_side_by_side_whoever_else_writes(bus: Bus) -> None:
    async def write(mailbox: str) -> None:
        fence = 0
        for _ in range(10):
            batch = messages(bus, 20, mailbox=mailbox)
            fence = await bus.log.commit(batch, filter_subject=mailbox_filter(bus, mailbox), fence=fence)
            at = [await bus.log.get(seq) for seq in range(fence - 19, fence + 1)]
            assert [one.subject for one in at if one] == [one.subject for one in batch]

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(write(f"m{number}"))


@pytest.mark.fault("D19")
async def test_the_message_before_another_is_found_however_much_of_others_lies_between(bus: Bus) -> None:
    subject, other = mailbox_filter(bus), mailbox_filter(bus, "other")
    ours = [await bus.log.commit(messages(bus, 1), filter_subject=subject, fence=0)]
    fence = 0
    for gap in (0, 1, 2, 3, 700):
        if gap:
            fence = await bus.log.commit(messages(bus, gap, mailbox="other"), filter_subject=other, fence=fence)
        ours.append(await bus.log.commit(messages(bus, 1), filter_subject=subject, fence=ours[-1]))
    end = ours[-1] + 500
    walked = []
    while (found := await bus.log.before(subject, end)) is not None:
        walked.append(found.seq)
        end = found.seq
    assert walked == ours[::-1]


@pytest.mark.fault("D02")
@pytest.mark.parametrize("count", [1, 2, 500])
async def test_a_wrong_fence_is_refused_and_nothing_lands(bus: Bus, count: int) -> None:
    subject = mailbox_filter(bus)
    await bus.log.commit(messages(bus, 3), filter_subject=subject, fence=0)
    refused = metrics.FENCE_REFUSED._value.get()
    for fence in (0, 1, 2, 4):
        with pytest.raises(FenceRefused):
            await bus.log.commit(messages(bus, count, first=100), filter_subject=subject, fence=fence)
    assert metrics.FENCE_REFUSED._value.get() == refused + 4
    assert await payloads(bus, subject) == [b"0", b"1", b"2"]


async def test_mailboxes_do_not_fence_each_other(bus: Bus) -> None:
    seqs = [
        await bus.log.commit(messages(bus, 2, mailbox=name), filter_subject=mailbox_filter(bus, name), fence=0)
        for name in ("INBOX", "INBOX.sub", "Sent")
    ]
    assert len(set(seqs)) == 3


@pytest.mark.fault("D20")
async def test_the_fence_is_this_exact_text(bus: Bus, nats_server: NatsServer) -> None:
    # The server compares fences in flight as strings: another version that writes it otherwise would not be refused.
    assert (FENCE, FENCE_SUBJECT) == (
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Subject-Sequence-Subject",
    )
    await bus.log.commit(messages(bus, 2), filter_subject=mailbox_filter(bus), fence=0)
    tail = await bus.log.get(1)
    assert tail is not None
    assert tail.headers[FENCE_SUBJECT] == f"{bus.subjects.prefix}.in.a.INBOX.*"


@pytest.mark.fault("D02")
async def test_of_two_racing_writers_one_lands_each_time(bus: Bus, nats_server: NatsServer) -> None:
    subject = mailbox_filter(bus)
    landed: list[bytes] = []

    async def write(writer: Bus, name: str) -> None:
        done = 0
        while done < 15:
            tail = await writer.log.tail(subject)
            mine = [OutMessage(m.subject, f"{name}{done}".encode(), {}) for m in messages(writer, 1 + done % 3)]
            try:
                await writer.log.commit(mine, filter_subject=subject, fence=tail.seq if tail else 0)
            except FenceRefused:
                continue
            landed.extend(m.payload for m in mine)
            done += 1

    async with opened(nats_server.url, bus.subjects.prefix) as other, asyncio.TaskGroup() as group:
        group.create_task(write(bus, "x"))
        group.create_task(write(other, "y"))
    found = await payloads(bus, subject)
    assert sorted(found) == sorted(landed)
    for name in ("x", "y"):
        own = [payload for payload in found if payload.startswith(name.encode())]
        assert own == sorted(own, key=lambda payload: int(payload[1:]))


@pytest.mark.fault("D05")
async def test_five_hundred_mailboxes_of_two_processes_commit_at_once(bus: Bus, nats_server: NatsServer) -> None:
    async with opened(nats_server.url, bus.subjects.prefix) as other, asyncio.TaskGroup() as group:
        for number in range(500):
            name = f"box{number}"
            writer = (bus, other)[number % 2]
            group.create_task(
                writer.log.commit(messages(bus, 4, mailbox=name), filter_subject=mailbox_filter(bus, name), fence=0)
            )
    bounds = await bus.log.bounds()
    assert bounds.last_seq == 500 * 4
    for number in (0, 77, 499):
        found = await payloads(bus, mailbox_filter(bus, f"box{number}"))
        assert found == [str(n).encode() for n in range(4)]


async def hold_all_places(bus: Bus) -> list[str]:
    held = [bus.subjects.event("a", f"held{number}", "received") for number in range(50)]
    for number, subject in enumerate(held):
        headers = {"Nats-Batch-Id": f"held{number}", "Nats-Batch-Sequence": "1"}
        reply = await bus.nc.request(subject, b"x", headers=headers, timeout=5)
        assert not reply.data
    return held


@pytest.mark.fault("D05")
async def test_where_all_fifty_places_are_taken_a_batch_waits_for_one(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await hold_all_places(bus)
    refused = asyncio.Event()
    real = bus.log._batches._begin

    async def begin(*arguments: Any, **more: Any) -> str:
        try:
            return await real(*arguments, **more)
        except ApiError as exc:
            if exc.err_code == 10210:
                refused.set()
            raise

    monkeypatch.setattr(bus.log._batches, "_begin", begin)

    async def let_go() -> None:
        await refused.wait()
        for number, subject in enumerate(held):
            headers = {"Nats-Batch-Id": f"held{number}", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
            await bus.nc.request(subject, b"x", headers=headers, timeout=5)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(let_go())
        group.create_task(bus.log.commit(messages(bus, 4), filter_subject=mailbox_filter(bus), fence=0))
    assert await payloads(bus, mailbox_filter(bus)) == [b"0", b"1", b"2", b"3"]


@pytest.mark.fault("D05")
async def test_what_waits_for_a_place_is_not_sent_again_with_each_try(
    bus: Bus, nats_server: NatsServer, fault_proxy: Callable[[str, int], Awaitable[FaultProxy]]
) -> None:
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        await hold_all_places(bus)
        subject = bus.subjects.event("a", "INBOX", "received")
        batch = [OutMessage(subject, b"x" * 10_000, {}) for _ in range(100)]
        before = proxy.passed[Way.TO_SERVER]
        with pytest.raises(Transient, match="places"):
            await behind.log.commit(batch, filter_subject=mailbox_filter(bus), fence=0)
        assert proxy.passed[Way.TO_SERVER] - before < 2_000_000


@pytest.mark.fault("D05")
async def test_where_no_place_comes_free_the_commit_is_transient_and_nothing_lands(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.batch.PLACES_TRIES", 2)

    async def full(*_: Any, **__: Any) -> str:
        raise ApiError(400, 10210, "batch publish is full")

    monkeypatch.setattr(bus.log._batches, "_begin", full)
    with pytest.raises(Transient, match="places"):
        await bus.log.commit(messages(bus, 2), filter_subject=mailbox_filter(bus), fence=0)


@pytest.mark.parametrize("count", [999, BATCH_LIMIT_MESSAGES])
async def test_a_batch_may_have_a_thousand_messages(bus: Bus, count: int) -> None:
    assert await bus.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0) == count


@pytest.mark.fault("D21")
async def test_the_log_keeps_no_duplicate_window(bus: Bus) -> None:
    subject, fence = mailbox_filter(bus), 0
    for id in ("a", "b", "a"):
        changed = OutMessage(bus.subjects.event("a", "INBOX", "changed"), id.encode(), {"ce-id": id})
        fence = await bus.log.commit([changed], filter_subject=subject, fence=fence)
        stored = await bus.log.get(fence)
        assert stored is not None
        assert "Nats-Msg-Id" not in stored.headers
    assert await payloads(bus, subject) == [b"a", b"b", b"a"]


@pytest.mark.fault("D12")
async def test_under_the_longest_names_what_fits_lands_and_what_does_not_is_refused(own_nats: NatsServer) -> None:
    async with opened(own_nats.url, "p" * 32) as bus:
        account, mailbox = "a" * 64, "m" * 200
        subject, where = bus.subjects.event(account, mailbox, "received"), bus.subjects.mailbox_filter(account, mailbox)
        room = bus.max_payload - header_size({"ce-id": "1"}) - len(where)
        events = [OutMessage(subject, b"x" * room, {"ce-id": str(n)}) for n in range(3)]
        with pytest.raises(MessageTooLarge):
            await bus.log.commit(
                [OutMessage(subject, b"x" * (room + 1), {"ce-id": "1"})], filter_subject=where, fence=0
            )
        fence = await bus.log.commit(events[:1], filter_subject=where, fence=0)
        staged = await bus.log.stage(events)
        assert staged is not None
        fence = await bus.log.commit(events, filter_subject=where, fence=fence, staged=staged)
        assert await bus.log.commit(events, filter_subject=where, fence=fence) == 7
