"""Who has the next connection: whoever has waited longest, also behind a message that takes its time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from service.smtp import Relay, Reply
from tests.servers.scripted import serving
from tests.servers.smtp_behind import SECOND, Watching
from tests.servers.smtp_steps import StepConnection
from tests.smtp.test_behind import LIMIT_S, code_of, connections_of, message, relay_to, send, send_all


@dataclass(kw_only=True)
class Held(Watching):
    """Answers the ends of these recipients' messages once they may be."""

    held: dict[str, asyncio.Event] = field(default_factory=dict)
    at_end: list[str] = field(default_factory=list)

    async def _end(self, connection: StepConnection) -> str:
        (who,) = connection.rcpt
        self.at_end.append(who)
        if who in self.held:
            await self.held[who].wait()
        return await super()._end(connection)


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 nothing rings
        await asyncio.sleep(0.001)


def gated(client: Relay, number: int) -> tuple[asyncio.Event, asyncio.Task[dict[str, Reply]]]:
    """A message whose end waits for the event."""
    go = asyncio.Event()

    async def dot(_: Mapping[str, Reply]) -> None:
        await go.wait()

    sent = client.deliver("me@x", [f"{number}@x"], message(number), before_final_dot=dot)
    return go, asyncio.create_task(sent)


async def test_who_is_behind_a_slow_message_goes_before_those_who_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = asyncio.Event()
    async with serving(Held(held={"3@x": answered}, wants=())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, connections=2)
        # Both connections have answered a message soon.
        await send_all(client, 1, 2)
        (third, slow), (fourth, other) = gated(client, 3), gated(client, 4)
        await asyncio.sleep(0)
        behind = asyncio.create_task(send(client, 5))
        await asyncio.sleep(0)
        third.set()
        await until(lambda: "3@x" in server.at_end and client._behind)
        later = asyncio.create_task(send(client, 6))
        monkeypatch.setattr("service.smtp.pool.QUICK_S", 0.0)
        fourth.set()
        assert code_of(await behind) == code_of(await later) == code_of(await other) == 250
        assert server.at_end.index("5@x") < server.at_end.index("6@x")
        assert not slow.done()
        answered.set()
        assert code_of(await slow) == 250
        await client.close()
    assert [len(server.copies(f"{number}@x")) for number in range(1, 7)] == [1] * 6


@pytest.mark.fault("E06")
async def test_who_waits_has_a_new_connection_once_the_relay_may_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody else comes, and no connection comes free."""
    monkeypatch.setattr("service.smtp.pool.FULL_S", 0.05)

    @dataclass(kw_only=True)
    class FullOnce(Held):
        async def greet(self, connection: StepConnection) -> None:
            if self.made == 2:
                await connection.send("421 4.7.0 too many connections\r\n")
                self.drop(connection)
            await super().greet(connection)

    answered = asyncio.Event()
    async with serving(FullOnce(held={"1@x": answered}, wants=())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, connections=2)
        slow = asyncio.create_task(send(client, 1))
        await until(lambda: server.at_end)
        assert code_of(await send(client, 2)) == 250
        assert not slow.done()
        answered.set()
        assert code_of(await slow) == 250
        await client.close()
    assert server.made == 3


async def test_a_relay_that_ends_each_connection_after_a_mail_keeps_nobody_waiting_for_ever() -> None:
    @dataclass(kw_only=True)
    class Once(Watching):
        """Ends the connection after a message, without a word and when the next one begins."""

        async def _mail(self, connection: StepConnection, rest: str) -> str:
            if connection.began:
                connection.cut()
                raise ConnectionAbortedError
            connection.began = True
            return await super()._mail(connection, rest)

    async with serving(Once(wants=())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server)
        done: list[int] = []

        async def one(number: int) -> None:
            assert code_of(await send(client, number)) == 250
            done.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(1, 13):
                group.create_task(one(number))
        await client.close()
        assert connections_of(client) == 0
    # Each one as it came.
    assert done == list(range(1, 13))


@dataclass
class Together(StepConnection):
    """Sends what it says in one piece, once that is so many replies."""

    batch: list[str] | None = None

    async def send(self, data: str | bytes) -> None:
        if self.batch is None:
            await super().send(data)
            return
        assert isinstance(data, str)
        self.batch.append(data)
        if len(self.batch) == REPLIES:
            said, self.batch = "".join(self.batch), None
            await super().send(said)


CONNECTIONS = (1, 2)
# The second message's end, and RSET, MAIL, RCPT and the first chunk behind it.
REPLIES = 5


@pytest.mark.fault("E09")
async def test_with_an_answer_too_many_nobody_goes_on_behind_it() -> None:
    @dataclass(kw_only=True)
    class Twice(Watching):
        """Answers the second message's end twice, together with what stands behind it."""

        def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> StepConnection:
            super().meet(reader, writer)
            return Together(reader, writer)

        async def _end(self, connection: StepConnection) -> str:
            said = await super()._end(connection)
            assert isinstance(connection, Together)
            connection.batch = [] if self.ends == SECOND else None
            return f"{said}\r\n{said}" if self.ends == SECOND else said

    async with serving(Twice()) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server)
        said = await send_all(client, 1, 2, 3)
        await client.close()
    assert {number: code_of(one) for number, one in said.items()} == dict.fromkeys((1, 2, 3), 250)
    assert [len(server.copies(f"{number}@x")) for number in (1, 2, 3)] == [1] * 3
    assert server.made == 2


async def test_a_relay_that_begins_anew_is_not_taken_for_one_that_loses_what_stands_behind_an_end() -> None:
    @dataclass(kw_only=True)
    class Restarting(Watching):
        """Answers the second end of each of two connections, and drops both with what stands behind."""

        both: asyncio.Event = field(default_factory=asyncio.Event)

        async def _end(self, connection: StepConnection) -> str:
            said = await super()._end(connection)
            if self.ends == len(CONNECTIONS) * 2:
                self.both.set()
            if len(CONNECTIONS) < self.ends <= len(CONNECTIONS) * 2:
                await self.both.wait()
                await connection.send(f"{said}\r\n")
                connection.cut()
                raise ConnectionAbortedError
            return said

    async with serving(Restarting(wants=(3, 4))) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, connections=len(CONNECTIONS))
        said = await send_all(client, *CONNECTIONS)
        said |= await send_all(client, *range(3, 21))
        await client.close()
    assert {code_of(one) for one in said.values()} == {250}
    assert [len(server.copies(f"{number}@x")) for number in range(1, 21)] == [1] * 20
    assert sum(map(bool, server.behind)) > len(CONNECTIONS)
