"""A micro service: many requests at once, errors in headers, a bug contained. Real server."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress

import pytest

from service.bus import Bus, ServiceError, serve
from service.bus.errors import MessageTooLarge
from service.bus.micro import REQUESTS_AT_ONCE
from service.errors import Transient
from service.observe import metrics


def headers(reply: object) -> Mapping[str, str]:
    """A reply's headers."""
    return getattr(reply, "headers", None) or {}


async def test_requests_are_answered_side_by_side(bus: Bus) -> None:
    waiting, all_here = 0, asyncio.Event()

    async def handler(subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            all_here.set()
        await all_here.wait()
        return subject.encode() + b"|" + payload

    subject = f"{bus.subjects.prefix}.cmd.*.echo"
    service = serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"echo": (subject, handler)})
    async with asyncio.timeout(10), service, asyncio.TaskGroup() as group:
        asked = [
            group.create_task(bus.nc.request(bus.subjects.cmd(f"a{n}", "echo"), b"%d" % n, timeout=10))
            for n in range(20)
        ]
    for n, task in enumerate(asked):
        assert task.result().data == f"{bus.subjects.cmd(f'a{n}', 'echo')}|{n}".encode()


async def test_an_error_is_a_code_and_one_line_and_a_bug_does_not_end_the_service(bus: Bus) -> None:
    bugs = metrics.BUGS._value.get()

    async def handler(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
        match payload:
            case b"error":
                raise ServiceError(404, "no such\r\nthing", body=b'{"x":1}')
            case b"bug":
                raise KeyError("a private subject")
        return b"fine"

    subject = bus.subjects.cmd("a", "x")
    async with serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)}):
        reply = await bus.nc.request(subject, b"error", timeout=5)
        assert headers(reply)["Nats-Service-Error-Code"] == "404"
        assert headers(reply)["Nats-Service-Error"] == "no such thing"
        assert json.loads(reply.data) == {"x": 1}
        reply = await bus.nc.request(subject, b"bug", timeout=5)
        assert headers(reply)["Nats-Service-Error-Code"] == "500"
        assert "private" not in str(headers(reply))
        assert metrics.BUGS._value.get() == bugs + 1
        assert (await bus.nc.request(subject, b"", timeout=5)).data == b"fine"
    with pytest.raises(Transient):
        await bus.request(subject, b"", timeout_s=2)


@pytest.mark.fault("G11")
async def test_a_flood_of_requests_waits_its_turn(bus: Bus) -> None:
    now, most = 0, 0

    async def handler(_subject: str, _payload: bytes, _headers: Mapping[str, str]) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return b"ok"

    subject = bus.subjects.cmd("a", "x")
    service = serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)})
    async with asyncio.timeout(30), service, asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(bus.nc.request(subject, b"", timeout=20))
    assert most <= REQUESTS_AT_ONCE


async def until_nobody_answers(bus: Bus, subject: str) -> None:
    with suppress(Transient):
        while True:
            await bus.request(subject, b"", timeout_s=0.2)


@pytest.mark.fault("G07")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a\r\nNats-Rollup: all", "a Nats-Rollup: all"),
        ("a\x00b\x1b[0m", "a\ufffdb\ufffd[0m"),
        ("half a character: \ud800", "half a character: \ufffd"),
    ],
)
async def test_an_error_is_one_line_and_is_answered_whatever_is_in_it(bus: Bus, what: str, said: str) -> None:
    async def handler(_subject: str, _payload: bytes, _headers: Mapping[str, str]) -> bytes:
        raise ServiceError(400, what)

    subject = bus.subjects.cmd("a", "x")
    async with serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)}):
        answer = await bus.nc.request(subject, b"", timeout=10)
    assert headers(answer) == {"Nats-Service-Error": said, "Nats-Service-Error-Code": "400"}


@pytest.mark.fault("F01")
async def test_what_is_under_way_at_the_end_is_answered_and_nothing_new_is_taken(bus: Bus) -> None:
    begun, leaving = asyncio.Event(), asyncio.Event()

    async def handler(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
        begun.set()
        await leaving.wait()
        await until_nobody_answers(bus, subject)
        return payload

    subject = bus.subjects.cmd("a", "x")
    service = serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)})
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, service:
        asked = group.create_task(bus.nc.request(subject, b"the first", timeout=15))
        await begun.wait()
        leaving.set()
    assert asked.result().data == b"the first"


@pytest.mark.fault("F01")
async def test_what_does_not_end_in_its_time_is_told_that_it_may_be_done(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.micro.FINISH_TIMEOUT_S", 0.1)
    begun = asyncio.Event()

    async def handler(_subject: str, _payload: bytes, _headers: Mapping[str, str]) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b"never"

    subject = bus.subjects.cmd("a", "x")
    service = serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)})
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, service:
        asked = group.create_task(bus.nc.request(subject, b"", timeout=15))
        await begun.wait()
    assert headers(asked.result())["Nats-Service-Error-Code"] == "504"
    assert "may be done" in headers(asked.result())["Nats-Service-Error"]


@pytest.mark.fault("G08")
@pytest.mark.parametrize("reply", ["in.a.INBOX.received", "status.a.sent", "out.a"])
async def test_an_answer_goes_to_an_inbox_and_becomes_nothing_else(bus: Bus, reply: str) -> None:
    asked: list[bytes] = []

    async def handler(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
        asked.append(payload)
        return b"an event"

    subject = bus.subjects.cmd("a", "x")
    async with serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)}):
        before = await bus.pending(bus.subjects.stream_out, bus.subjects.out("a"))
        await bus.nc.publish(subject, b"forged", reply=f"{bus.subjects.prefix}.{reply}")
        await bus.nc.request(subject, b"honest", timeout=5)
        assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("a")) == before
        assert await bus.log.tail(f"{bus.subjects.prefix}.in.a.INBOX.*") is None
    assert asked == [b"honest"]


@pytest.mark.fault("D12")
async def test_what_nats_would_not_take_is_answered_with_413_and_not_asked(bus: Bus) -> None:
    async def handler(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
        if payload == b"keep":
            await bus.key_value(bus.subjects.cursors).create("k", b"x" * bus.max_payload)
        return b"x" * bus.max_payload

    subject = bus.subjects.cmd("a", "x")
    async with serve(bus.nc, name="mailbus", version="1.0.0", endpoints={"x": (subject, handler)}):
        for asked in (b"", b"keep"):
            reply = await bus.nc.request(subject, asked, timeout=5)
            assert headers(reply)["Nats-Service-Error-Code"] == "413"
        with pytest.raises(MessageTooLarge):
            await bus.request(subject, b"x" * bus.max_payload, {"a": "b"}, timeout_s=5)
    assert bus.nc.stats["reconnects"] == 0
