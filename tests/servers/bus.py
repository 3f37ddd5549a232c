"""mailbus's own connection to the shared NATS, and a consumer's, under the test's prefix."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from tests.servers.mailbus import BusReader, reading
from tests.servers.nats import NatsServer


@asynccontextmanager
async def bus_at(url: str, prefix: str) -> AsyncIterator[Bus]:
    async with open_bus(NatsOptions(servers=(url,), prefix=prefix), StreamOptions()) as bus:
        yield bus


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_server.url, prefix) as opened:
        yield opened


@pytest.fixture
async def reader(nats_server: NatsServer, prefix: str) -> AsyncIterator[BusReader]:
    async with reading(nats_server.url, prefix) as opened:
        yield opened
