"""Commits whose answer is lost, and servers that are killed or full: the tail says what is true. Real server."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import pytest

from service.bus import Bus, CommitUnknown, FenceRefused, OutMessage
from service.errors import Transient
from tests.bus.conftest import mailbox_filter, messages, opened, payloads, stream_config, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way

MakeProxy = Callable[[str, int], Awaitable[FaultProxy]]


@pytest.fixture
async def proxied(nats_server: NatsServer, bus: Bus, fault_proxy: MakeProxy) -> AsyncIterator[tuple[Bus, FaultProxy]]:
    """A second bus on the same streams, behind a proxy."""
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        yield behind, proxy
        proxy.heal()


@pytest.mark.fault("D03", "D04")
@pytest.mark.parametrize("count", [1, 20])
async def test_a_commit_whose_answer_is_lost_is_unknown_and_the_tail_says_that_it_landed(
    bus: Bus, proxied: tuple[Bus, FaultProxy], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, proxy = proxied
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 0.5)
    await behind.log.tail(mailbox_filter(bus))

    def lose_the_answer(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and (count == 1 or b"Nats-Batch-Commit" in chunk):
            proxy.swallow(Way.TO_CLIENT)
        return chunk

    proxy.watch = lose_the_answer
    with pytest.raises(CommitUnknown):
        await behind.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)
    tail = await bus.log.tail(mailbox_filter(bus))
    assert tail is not None
    assert tail.payload == str(count - 1).encode()
    # The same again, as one who had not looked: refused, not doubled.
    with pytest.raises(FenceRefused):
        await bus.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)
    assert len(await payloads(bus, mailbox_filter(bus))) == count


@pytest.mark.fault("D03", "D04")
@pytest.mark.parametrize("count", [1, 20])
async def test_a_commit_that_never_arrives_is_unknown_and_the_tail_says_so(
    bus: Bus, proxied: tuple[Bus, FaultProxy], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, proxy = proxied
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 0.5)
    await behind.log.tail(mailbox_filter(bus))
    proxy.swallow(Way.TO_SERVER)
    with pytest.raises(CommitUnknown):
        await behind.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)
    assert await bus.log.tail(mailbox_filter(bus)) is None
    await bus.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)
    assert len(await payloads(bus, mailbox_filter(bus))) == count


@pytest.mark.fault("D03")
@pytest.mark.parametrize("count", [1, 20])
async def test_a_commit_that_arrives_after_its_retry_is_refused_by_the_same_fence(
    bus: Bus, proxied: tuple[Bus, FaultProxy], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, proxy = proxied
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 0.5)
    await behind.log.tail(mailbox_filter(bus))

    if count == 1:
        proxy.stall(Way.TO_SERVER)

    def hold_what_follows(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"Nats-Batch-Id" in chunk:
            proxy.stall(Way.TO_SERVER)  # this much of it is there, and stands open
        return chunk

    proxy.watch = hold_what_follows
    with pytest.raises(CommitUnknown):
        await behind.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)
    # The retry reads anew: its content may be another, longer or shorter.
    await bus.log.commit(messages(bus, count + 1, first=70), filter_subject=mailbox_filter(bus), fence=0)
    proxy.heal()
    # Whatever was held up has passed once this connection answers again.
    assert await behind.log.tail(mailbox_filter(bus)) is not None
    assert await payloads(bus, mailbox_filter(bus)) == [b"%d" % n for n in range(70, 71 + count)]


@pytest.mark.fault("D03")
async def test_a_retry_over_the_same_connection_is_a_batch_of_its_own(
    bus: Bus, proxied: tuple[Bus, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the first one's id its messages would be taken into what stands open, and what is late for its rest."""
    behind, proxy = proxied
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 0.5)
    await behind.log.tail(mailbox_filter(bus))
    sent = b""

    def lose_the_first_commit(way: Way, chunk: bytes) -> bytes:
        nonlocal sent
        if way is Way.TO_SERVER:
            lost = b"Nats-Batch-Commit" in chunk and b"Nats-Batch-Commit" not in sent
            sent += chunk
            return b"" if lost else chunk
        return chunk

    proxy.watch = lose_the_first_commit
    with pytest.raises(CommitUnknown):
        await behind.log.commit(messages(bus, 20), filter_subject=mailbox_filter(bus), fence=0)
    await behind.log.commit(messages(bus, 10, first=70), filter_subject=mailbox_filter(bus), fence=0)
    assert await payloads(bus, mailbox_filter(bus)) == [b"%d" % n for n in range(70, 80)]
    assert len(set(re.findall(rb"Nats-Batch-Id: *(\S+)", sent))) == 2


@pytest.mark.fault("D03")
async def test_a_connection_cut_within_a_batch_leaves_all_or_nothing(
    bus: Bus, proxied: tuple[Bus, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, proxy = proxied
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 1.0)
    subject = mailbox_filter(bus)
    expected = 0
    for cut in range(0, 9000, 1500):
        fence = (tail.seq if (tail := await bus.log.tail(subject)) else 0) if expected else 0
        async with asyncio.timeout(10):
            await behind.wait_connected()
            while True:
                try:
                    await behind.log.tail(subject)
                    break
                except Transient:
                    continue
        proxy.cut_after(cut, Way.TO_SERVER)
        with suppress(CommitUnknown, FenceRefused):
            await behind.log.commit(messages(bus, 30), filter_subject=subject, fence=fence)
        found = len(await payloads(bus, subject))
        assert found in (expected, expected + 30), f"cut after {cut} bytes"
        expected = found


@pytest.mark.fault("D04")
@pytest.mark.parametrize("code", [10071, 10164, 10163, 10176, 10201])
async def test_every_refusal_means_read_the_tail_again(bus: Bus, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_args: Any, **_named: Any) -> Any:
        class Reply:
            data = json.dumps({"error": {"code": 400, "err_code": code, "description": "said no"}}).encode()

        return Reply

    monkeypatch.setattr(bus.nc, "request", refuse)
    for count in (1, 3):
        with pytest.raises(FenceRefused, match=str(code)):
            await bus.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)


@pytest.mark.fault("D04")
@pytest.mark.parametrize(
    "error", [nats.errors.NoRespondersError(), nats.errors.TimeoutError(), OSError(), TimeoutError()]
)
async def test_every_silence_means_unknown(bus: Bus, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: Any, **_named: Any) -> Any:
        raise error

    monkeypatch.setattr(bus.nc, "request", fail)
    for count in (1, 3):
        with pytest.raises(CommitUnknown):
            await bus.log.commit(messages(bus, count), filter_subject=mailbox_filter(bus), fence=0)


@pytest.mark.fault("D04")
async def test_no_stream_means_unknown_not_success(own_bus: Bus) -> None:
    reply = await own_bus.nc.request("$JS.API.STREAM.DELETE.MAIL_IN", b"", timeout=5)
    assert json.loads(reply.data)["success"]
    with pytest.raises(CommitUnknown):
        await own_bus.log.commit(messages(own_bus, 1), filter_subject=mailbox_filter(own_bus), fence=0)


@pytest.mark.fault("D15")
async def test_a_full_stream_that_discards_the_new_refuses_with_its_code_and_loses_nothing(
    bus: Bus, nats_server: NatsServer
) -> None:
    config = await stream_config(bus, bus.subjects.stream_in)
    await bus.nc.request(
        f"$JS.API.STREAM.UPDATE.{bus.subjects.stream_in}",
        json.dumps(config | {"max_bytes": 2000, "discard": "new"}).encode(),
        timeout=5,
    )
    subject, fence, landed = mailbox_filter(bus), 0, 0

    async def fill() -> None:
        nonlocal fence, landed
        while True:
            fence = await bus.log.commit(messages(bus, 1, first=landed), filter_subject=subject, fence=fence)
            landed += 1

    with pytest.raises(FenceRefused, match=r"maximum bytes exceeded \(10077\)"):
        await fill()
    with pytest.raises(FenceRefused, match="10077"):
        await bus.log.commit(messages(bus, 3, first=landed), filter_subject=subject, fence=fence)
    assert await payloads(bus, subject) == [str(n).encode() for n in range(landed)]


@pytest.mark.fault("D15")
async def test_a_server_without_space_is_transient_with_its_code(own_nats: NatsServer, own_bus: Bus) -> None:
    own_nats.config["jetstream"] = {"max_file": 200_000}
    await own_nats.restart()
    subject, fence, landed = mailbox_filter(own_bus), 0, 0
    big = OutMessage(messages(own_bus, 1)[0].subject, b"x" * 20_000, {})

    async def fill() -> None:
        nonlocal fence, landed
        while landed < 100:
            try:
                fence = await own_bus.log.commit([big], filter_subject=subject, fence=fence)
                landed += 1
            except CommitUnknown:
                await own_bus.wait_connected()

    async with asyncio.timeout(30):
        with pytest.raises(Transient, match=r"\(100\d\d\)"):
            await fill()
    assert 0 < landed < 100
    assert len(await payloads(own_bus, subject)) == landed


@pytest.mark.fault("D15")
@pytest.mark.parametrize("count", [1, 3])
async def test_an_account_of_nats_whose_store_is_full_is_said_with_its_code_and_nothing_is_dropped(
    own_nats: NatsServer, prefix: str, count: int
) -> None:
    limited = {"jetstream": {"max_file": 100_000}, "users": [{"user": "limited", "password": "p"}]}
    own_nats.config |= {"accounts": {"LIMITED": limited}, "no_auth_user": "limited"}
    await own_nats.restart()
    async with opened(own_nats.url, prefix) as bus:
        subject, fence, landed = mailbox_filter(bus), 0, 0
        big = [OutMessage(messages(bus, 1)[0].subject, b"x" * 10_000, {"ce-id": str(n)}) for n in range(count)]

        async def fill() -> None:
            nonlocal fence, landed
            while landed < 100:
                fence = await bus.log.commit(big, filter_subject=subject, fence=fence)
                landed += count

        async with asyncio.timeout(30):
            with pytest.raises(FenceRefused, match=r"limits exceeded for account \(10002\)"):
                await fill()
        assert 0 < landed < 100
        assert len(await payloads(bus, subject)) == landed


@pytest.mark.fault("D13")
async def test_a_server_killed_between_commits_keeps_what_it_confirmed(own_nats: NatsServer, own_bus: Bus) -> None:
    subject, confirmed = mailbox_filter(own_bus), 0
    for round_number in range(3):
        async with asyncio.timeout(30):
            while True:
                try:
                    tail = await own_bus.log.tail(subject)
                    batch = messages(own_bus, 5, first=confirmed)
                    await own_bus.log.commit(batch, filter_subject=subject, fence=tail.seq if tail else 0)
                    break
                except (Transient, CommitUnknown):
                    await own_bus.wait_connected()
        confirmed += 5
        if round_number < 2:
            await own_nats.restart()
    assert await payloads(own_bus, subject) == [str(n).encode() for n in range(confirmed)]


@pytest.mark.fault("D03", "D13")
async def test_a_server_killed_at_any_moment_of_a_commit_loses_and_doubles_nothing(
    own_nats: NatsServer, own_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr("service.bus.errors.REQUEST_TIMEOUT_S", 1.0)
    chance = random.Random(7)
    subject = mailbox_filter(own_bus)
    written, finished = 0, False

    async def write() -> None:
        nonlocal written
        while not finished:
            try:
                tail = await own_bus.log.tail(subject)
                written = int(tail.payload) + 1 if tail else 0
                # A long one first, so that the rest meets a stream that holds something to lose.
                count = chance.choice([1, 2, 40, 300]) if written else 300
                batch = messages(own_bus, count, first=written)
                await own_bus.log.commit(batch, filter_subject=subject, fence=tail.seq if tail else 0)
            except (Transient, CommitUnknown):
                await own_bus.wait_connected()

    async def kill() -> None:
        nonlocal finished
        for _ in range(6):
            before = written
            await until(lambda before=before: written > before)  # type: ignore[misc]
            await asyncio.sleep(chance.uniform(0, 0.05))  # any moment
            await own_nats.restart()
        finished = True

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(kill())
    found = await payloads(own_bus, subject)
    assert len(found) > 300
    assert found == [b"%d" % n for n in range(len(found))]
