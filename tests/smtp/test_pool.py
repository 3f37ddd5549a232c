"""Connections that are kept: how many mails one carries, how long it may lie idle, and that a dead one is not used."""

import asyncio

import pytest

from tests.servers.smtp import ScriptedRelay
from tests.smtp.harness import MESSAGE, Dot, relay_to


async def test_a_connection_carries_so_many_mails_and_then_another_does(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.smtp.pool.TRANSACTIONS_LIMIT", 2)
    client = relay_to(relay)
    for _ in range(5):
        assert (await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))["a@x"].accepted
    await client.close()
    assert (relay.connections, len(relay.messages)) == (3, 5)


async def test_a_connection_that_lies_idle_is_ended_by_itself(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.smtp.pool.IDLE_S", 0.05)
    client = relay_to(relay)
    await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
    async with asyncio.timeout(10):
        while relay._open:  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)
    await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
    await client.close()
    assert relay.connections == 2


async def test_as_many_connections_as_deliveries_at_once_and_no_more(relay: ScriptedRelay) -> None:
    client = relay_to(relay)
    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))
    await client.close()
    assert relay.connections <= 4
    assert len(relay.messages) == 12
