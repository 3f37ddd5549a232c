"""A bus under a prefix of its own."""

from collections.abc import AsyncIterator

import pytest

from service.bus import Bus
from tests.ingest.harness import bus_at
from tests.servers.nats import NatsServer


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_server.url, prefix) as opened:
        yield opened
