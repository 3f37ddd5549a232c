"""The network is away from all accounts and comes back: they come back in turn, all of them, over few connections."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from service.build.gangway import CONNECTING_LIMIT, CONNECTING_LIMIT_A_HOST
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import Mailbus, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.scripted import serving

# MAILBUS_TEST_RETURNS=10000 with --timeout 1800: some minutes, and 20,000 file descriptors.
ACCOUNTS = int(os.environ.get("MAILBUS_TEST_RETURNS", "120"))
HOSTS = 3 if ACCOUNTS < 1000 else 20
LIMIT_S = 60.0 + ACCOUNTS / 20


@dataclass
class Provider(ImapStub):
    """Listens at several addresses; `most` connections at once that had not logged in yet, at each and at all."""

    most: Counter[str] = field(default_factory=Counter)
    strangers: dict[asyncio.StreamReader, str] = field(default_factory=dict)

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        self.strangers[reader] = writer.get_extra_info("sockname")[0]
        now = Counter(self.strangers.values())
        self.most |= now | Counter({"all": now.total()})
        return super().meet(reader, writer)

    async def answer(self, connection: Connection, line: str) -> bool:
        going = await super().answer(connection, line)
        if "LOGIN" in line:
            self.strangers.pop(connection.reader, None)
        return going

    def hang_up(self, connection: Connection) -> None:
        self.strangers.pop(connection.reader, None)
        super().hang_up(connection)

    @property
    def idling(self) -> int:
        return sum(bool(connection.idling) for connection in self.connections)


def account(number: int, port: int) -> dict[str, Any]:
    imap = {"host": f"127.0.0.{number % HOSTS + 1}", "port": port, "security": "none"}
    return {"id": f"a{number}", "address": "a@example.com", "password": "x", "incoming": {"imap": imap}}


async def lag_p99_s(one: Mailbus) -> float:
    """The bucket of the event loop's lag that holds 99 of 100."""
    async with aiohttp.ClientSession() as client:
        text = await (await client.get(f"http://127.0.0.1:{one.port}/metrics")).text()
    found = re.findall(r'^mailbus_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    total = float(found[-1][1])
    return next(float(edge) for edge, count in found if float(count) >= 0.99 * total)


@pytest.mark.fault("F07")
async def test_the_network_comes_back_for_all_accounts_and_they_come_back_in_turn(
    own_nats: NatsServer, mailbus: Callable[..., Mailbus], prefix: str
) -> None:
    provider, loop = Provider(), asyncio.get_running_loop()
    async with serving(provider, host="0.0.0.0"):
        one = mailbus(settings_for(own_nats.url, prefix, *(account(n, provider.port) for n in range(ACCOUNTS))))
        one.start(MAILBUS_LOG__LEVEL="info")
        await one.started()
        began = loop.time()
        await until(lambda: provider.idling == ACCOUNTS, limit_s=LIMIT_S, what="all are connected")
        print(f"{ACCOUNTS} accounts connected {loop.time() - began:.1f} s after the start")
    # All connections are gone, and nobody listens.
    await until(lambda: len(one.said("account_state")) >= 2 * ACCOUNTS, limit_s=LIMIT_S, what="all have noticed")
    provider.most.clear()
    async with serving(provider, host="0.0.0.0"):
        began = loop.time()
        await until(lambda: provider.idling == ACCOUNTS, limit_s=LIMIT_S, what="all are connected again")
        print(f"again {loop.time() - began:.1f} s after it was back; at once {dict(provider.most)}")
        print(f"event loop late by {await lag_p99_s(one)} s at the most, 99 times of 100")
        assert provider.most.pop("all") <= CONNECTING_LIMIT
        assert max(provider.most.values()) <= CONNECTING_LIMIT_A_HOST
        assert len(provider.connections) == ACCOUNTS
        assert await one.stop() == 0
