"""A bus on a real server, under a prefix of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from service.bus import Bus, NatsOptions, OutMessage, StreamOptions, open_bus
from service.bus.errors import js_api
from service.bus.streams import wanted_streams
from tests.servers.nats import NatsServer

OpenBus = Callable[..., AbstractAsyncContextManager[Bus]]


def messages(bus: Bus, count: int, *, mailbox: str = "INBOX", first: int = 0) -> Sequence[OutMessage]:
    """Events of a mailbox, numbered in their payload."""
    subject = bus.subjects.event("a", mailbox, "received")
    return [OutMessage(subject, str(first + n).encode(), {"ce-id": f"{mailbox}-{first + n}"}) for n in range(count)]


def mailbox_filter(bus: Bus, mailbox: str = "INBOX") -> str:
    """The fence's subject of a mailbox."""
    return bus.subjects.mailbox_filter("a", mailbox)


async def payloads(bus: Bus, subject: str) -> list[bytes]:
    """Everything that the log holds on a subject, in order."""
    found: list[bytes] = []
    seq = 1
    while True:
        request = {"seq": seq, "next_by_subj": subject}
        reply = await bus.log._get(request)
        if reply is None:
            return found
        found.append(reply.payload)
        seq = reply.seq + 1


async def stream_config(bus: Bus, stream: str) -> dict[str, Any]:
    """A stream's configuration as the server has it."""
    config: dict[str, Any] = (await js_api(bus.nc, f"STREAM.INFO.{stream}"))["config"]
    return config


async def until(condition: Callable[[], bool], limit_s: float = 15) -> None:
    """Wait for a condition, with a limit."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 conditions of real servers ring no bell
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(url: str, prefix: str, **options: Any) -> AsyncIterator[Bus]:
    """A bus at a URL; its streams stay."""
    streams = options.pop("streams", StreamOptions())
    async with open_bus(NatsOptions(servers=(url,), prefix=prefix, **options), streams) as bus:
        yield bus


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    """On the shared server; what it made goes with the test."""
    async with opened(nats_server.url, prefix) as bus:
        yield bus
        for config in wanted_streams(bus.subjects, StreamOptions(), 1):
            await js_api(bus.nc, f"STREAM.DELETE.{config['name']}")


@pytest.fixture
async def own_bus(own_nats: NatsServer) -> AsyncIterator[Bus]:
    """On a server of one's own."""
    async with opened(own_nats.url, "mail") as bus:
        yield bus
