"""Connections that are kept: how many mails one carries, how long it may lie idle, and that a dead one is not used."""

import asyncio
from dataclasses import dataclass

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.smtp import Relay, SmtpOptions
from tests.servers.smtp import ScriptedRelay
from tests.servers.smtp_steps import Act, Step, StepConnection, StepRelay, serving
from tests.smtp.harness import MESSAGE, Dot, relay_to

LIMIT_S = 30.0


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


@dataclass(kw_only=True)
class OneAtATime(StepRelay):
    """Takes one connection, and says goodbye at its leisure: until that has ended it is one."""

    there: int = 0
    refused: int = 0

    async def greet(self, connection: StepConnection) -> None:
        if self.there:
            self.refused += 1
            await connection.send("421 4.7.0 too many connections\r\n")
            self.drop(connection)
        self.there += 1
        await super().greet(connection)

    async def _quit(self, connection: StepConnection, rest: str) -> str:
        await asyncio.sleep(0.05)
        self.there -= 1
        return await super()._quit(connection, rest)


async def send_to(server: StepRelay, count: int) -> None:
    """So many at once, by one connection at a time, which carries two of them."""
    options = SmtpOptions("a", "127.0.0.1", server.port, Security.NONE, login=False, connections=1)
    client = Relay(options, SystemClock())
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))
    await client.close()


@pytest.mark.fault("E06")
async def test_a_relay_that_takes_one_connection_gets_the_next_once_it_has_ended_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.smtp.pool.TRANSACTIONS_LIMIT", 2)
    async with serving(OneAtATime()) as server:
        await send_to(server, 6)
    assert (server.refused, len(server.taken)) == (0, 6)


async def test_a_relay_that_says_no_goodbye_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.smtp.pool.TRANSACTIONS_LIMIT", 2)
    monkeypatch.setattr("service.smtp.session.GOODBYE_S", 0.05)
    async with serving(StepRelay(at=Step.QUIT, do=Act.STALL, times=9)) as server:
        await send_to(server, 6)
    assert len(server.taken) == 6
