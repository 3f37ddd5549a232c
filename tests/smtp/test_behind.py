"""The next message's envelope goes out with the end of the one before (RFC 2920 3.1), and neither costs the other."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.errors import MailbusError, Transient
from service.smtp import JOINED_BYTES, DotUnanswered, Relay, RelayUnreachable, Reply, SmtpOptions, TurnedAway
from service.smtp.errors import RelayFull
from tests.servers.scripted import serving
from tests.servers.smtp_behind import SECOND, THIRD, Watching
from tests.servers.smtp_steps import OFFERS, Act, Step, StepConnection, StepRelay
from tests.smtp.harness import MESSAGE, Dot

LIMIT_S = 10.0
WAYS = pytest.mark.parametrize("offers", [OFFERS, ("PIPELINING",)], ids=["bdat", "data"])


def relay_to(server: StepRelay, **changes: Any) -> Relay:
    options = {"login": False, "connections": 1} | changes
    return Relay(SmtpOptions("a", "127.0.0.1", server.port, Security.NONE, **options), SystemClock())


@asynccontextmanager
async def watching(**script: Any) -> AsyncIterator[tuple[Watching, Relay]]:
    """A server, and a client with one connection to it."""
    async with asyncio.timeout(LIMIT_S), serving(Watching(**script)) as server:
        client = relay_to(server)
        try:
            yield server, client
        finally:
            await client.close()


def message(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n%d\r\n" % (number, number)


async def send(client: Relay, number: int, data: bytes | None = None) -> dict[str, Reply] | MailbusError:
    try:
        return await client.deliver("me@x", [f"{number}@x"], data or message(number), before_final_dot=Dot())
    except MailbusError as exc:
        return exc


async def send_all(client: Relay, *numbers: int) -> dict[int, dict[str, Reply] | MailbusError]:
    async with asyncio.TaskGroup() as group:
        tasks = {number: group.create_task(send(client, number)) for number in numbers}
    return {number: task.result() for number, task in tasks.items()}


def code_of(said: dict[str, Reply] | MailbusError) -> int:
    assert isinstance(said, Mapping), said
    (reply,) = said.values()
    return reply.code


@WAYS
@pytest.mark.parametrize("lmtp", [False, True], ids=["smtp", "lmtp"])
async def test_the_next_envelope_is_there_before_an_end_is_answered(offers: Sequence[str], lmtp: bool) -> None:
    async with serving(Watching(offers=offers, lmtp=lmtp, wants=(2, 3, 4))) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, lmtp=lmtp)
        said = await send_all(client, 1, 2, 3, 4, 5)
        await client.close()
    assert {number: code_of(one) for number, one in said.items()} == dict.fromkeys(range(1, 6), 250)
    assert [server.copies(f"{n}@x") for n in range(1, 6)] == [[message(n)] for n in range(1, 6)]
    assert server.made == 1
    first, *between, last = server.behind
    assert (first, last) == (b"", b"")
    go = b"BDAT 1\r\nS" if "CHUNKING" in offers else b"DATA\r\n"
    assert between == [b"RSET\r\nMAIL FROM:<me@x>\r\nRCPT TO:<%d@x>\r\n%b" % (n, go) for n in (3, 4, 5)]


async def test_without_pipelining_every_envelope_waits() -> None:
    async with watching(offers=("CHUNKING",), wants=()) as (server, client):
        await send_all(client, 1, 2, 3)
        assert server.behind == [b"", b"", b""]


async def test_nothing_goes_behind_a_relay_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.smtp.session.QUICK_S", 0.0)
    async with watching(wants=()) as (server, client):
        await send_all(client, 1, 2, 3)
        assert server.behind == [b"", b"", b""]


async def test_a_message_that_is_not_small_waits_for_the_answer() -> None:
    large = message(3) + b"x" * JOINED_BYTES + b"\r\n"
    async with watching(wants=()) as (server, client), asyncio.TaskGroup() as group:
        for number in (1, 2):
            group.create_task(send(client, number))
        group.create_task(send(client, 3, large))
    assert server.behind == [b"", b"", b""]
    assert server.copies("3@x") == [large]


@WAYS
@pytest.mark.fault("E06")
@pytest.mark.parametrize(("then", "code"), [(Act.REFUSE, 550), (Act.DEFER, 451)])
async def test_a_message_that_is_refused_at_its_end_costs_the_next_nothing(
    offers: Sequence[str], then: Act, code: int
) -> None:
    async with watching(offers=offers, then=then) as (server, client):
        said = await send_all(client, 1, 2, 3)
        assert {number: code_of(one) for number, one in said.items()} == {1: 250, 2: code, 3: 250}
        assert [len(server.copies(f"{n}@x")) for n in (1, 2, 3)] == [1, 0, 1]
        assert server.made == 1


@WAYS
@pytest.mark.fault("E09")
@pytest.mark.parametrize("then", [Act.DROP, Act.TAKE_AND_DROP])
async def test_a_connection_that_is_lost_after_an_end_costs_the_next_nothing(offers: Sequence[str], then: Act) -> None:
    async with watching(offers=offers, then=then) as (server, client):
        said = await send_all(client, 1, 2, 3)
        assert isinstance(said[SECOND], DotUnanswered)
        assert code_of(said[THIRD]) == 250
        assert server.copies("3@x") == [message(3)]
        assert server.made == 2


@WAYS
@pytest.mark.fault("E06")
async def test_a_relay_that_closes_with_421_at_an_end_costs_the_next_nothing(offers: Sequence[str]) -> None:
    async with watching(offers=offers, then=Act.CLOSE) as (server, client):
        said = await send_all(client, 1, 2, 3)
        assert {number: code_of(one) for number, one in said.items()} == {1: 250, 2: 421, 3: 250}
        assert server.copies("3@x") == [message(3)]
        assert server.made == 2


@WAYS
@pytest.mark.parametrize("step", [Step.RSET, Step.MAIL, Step.RCPT, Step.GO])
@pytest.mark.parametrize("do", [Act.DROP, Act.CLOSE])
async def test_a_connection_that_is_lost_in_an_envelope_behind_takes_no_answer_away(
    offers: Sequence[str], step: Step, do: Act
) -> None:
    """Whoever was in front has its answer; whoever was behind goes by another connection."""
    async with watching(offers=offers, next=(step, do)) as (server, client):
        said = await send_all(client, 1, 2, 3)
        assert {number: code_of(one) for number, one in said.items()} == dict.fromkeys((1, 2, 3), 250)
        assert [server.copies(f"{n}@x") for n in (1, 2, 3)] == [[message(n)] for n in (1, 2, 3)]
        assert server.made == 2


@WAYS
async def test_recipients_are_refused_behind_as_they_are_elsewhere(offers: Sequence[str]) -> None:
    async with watching(offers=offers, rcpt={"3@x": ["550 5.1.1 unknown"]}) as (server, client):
        said = await send_all(client, 1, 2, 3, 4)
        assert {number: code_of(one) for number, one in said.items()} == {1: 250, 2: 250, 3: 550, 4: 250}
        assert not server.copies("3@x")


@WAYS
async def test_whoever_is_cancelled_behind_takes_no_answer_away(offers: Sequence[str]) -> None:
    async with watching(offers=offers, go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3)]
        await server.holds.wait()
        tasks[2].cancel()
        await asyncio.wait(tasks[2:])
        assert server.go is not None
        server.go.set()
        assert [code_of(await task) for task in tasks[:2]] == [250, 250]
        # What nobody waits for any more is not mistaken for an answer to the next.
        assert code_of((await send_all(client, 4))[4]) == 250
        assert not server.copies("3@x")
        assert server.made == 2


@WAYS
async def test_whoever_is_cancelled_in_front_takes_the_next_no_chance(offers: Sequence[str]) -> None:
    async with watching(offers=offers, go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3)]
        await server.holds.wait()
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        assert code_of(await tasks[2]) == 250
        assert server.copies("3@x") == [message(3)]


async def test_whoever_waits_for_a_connection_hears_that_none_comes_about() -> None:
    async with watching(go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3, 4)]
        await server.holds.wait()
        server.at, server.do, server.times = Step.BANNER, Act.REFUSE, 9
        server.connections[0].cut()
        said = [await task for task in tasks]
        assert code_of(said[0]) == 250
        assert isinstance(said[1], DotUnanswered)
        assert [type(one) for one in said[2:]] == [RelayUnreachable, RelayUnreachable]


async def test_an_intent_that_fails_leaves_the_next_a_connection() -> None:
    async def fails(_: Mapping[str, Reply]) -> None:
        raise Transient("no NATS")

    async def second() -> None:
        with pytest.raises(Transient, match="no NATS"):
            await client.deliver("me@x", ["2@x"], MESSAGE, before_final_dot=fails)

    async with watching(wants=()) as (server, client):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(send(client, 1))
            group.create_task(second())
            third = group.create_task(send(client, 3))
        assert [code_of(await one) for one in (first, third)] == [250, 250]
        assert not server.copies("2@x")


def connections_of(client: Relay) -> int:
    """How many it counts that stand or are being made."""
    return client._count


@pytest.mark.parametrize("first", [0, 1, 2], ids=["in front", "behind", "waiting"])
async def test_whoever_is_cancelled_together_leaves_no_connection_counted(first: int) -> None:
    """In one turn of the loop, in each order: what one gives up must not be given to another that is cancelled too."""
    async with watching(go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3, 4, 5)]
        await server.holds.wait()
        front = tasks[1:]
        for task in (*front[first:], *front[:first]):
            task.cancel()
        await asyncio.wait(front)
        assert all(task.cancelled() for task in front)
        assert connections_of(client) == 0
        assert code_of((await send_all(client, 6))[6]) == 250


async def test_an_answer_that_comes_as_whoever_waits_is_cancelled_is_heard() -> None:
    async with watching(wants=()) as (_server, client):
        waiting: list[asyncio.Task[Any]] = []
        leave = client._leave

        def cancelled_first(session: Any) -> None:
            for task in waiting:
                task.cancel()
            leave(session)

        client._leave = cancelled_first  # type: ignore[method-assign]  # in the very turn in which the answer is there
        first = asyncio.create_task(send(client, 1))
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(send(client, 2)))
        assert code_of(await first) == 250
        await asyncio.wait(waiting)
        assert connections_of(client) == 1


async def test_whoever_is_turned_away_had_nothing_begun_and_takes_no_answer_away() -> None:
    async with watching(go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3, 4)]
        await server.holds.wait()
        client.turn_away(until_closed=True)
        said = [await task for task in tasks[2:]]
        assert [type(one) for one in said] == [TurnedAway, TurnedAway]
        assert isinstance(await send(client, 5), TurnedAway)
        assert server.go is not None
        server.go.set()
        assert [code_of(await task) for task in tasks[:2]] == [250, 250]
        await client.close()
        assert code_of(await send(client, 6)) == 250
        assert [len(server.copies(f"{number}@x")) for number in range(1, 7)] == [1, 1, 0, 0, 0, 1]


async def test_whoever_is_behind_one_that_takes_its_time_has_the_next_free_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.smtp.pool.QUICK_S", 0.05)
    async with serving(Watching(go=asyncio.Event())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server)
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3)]
        await server.holds.wait()
        # A connection more than there was as the third went behind the second.
        client._limit = 2
        assert code_of(await tasks[2]) == 250
        assert not tasks[1].done()
        assert server.go is not None
        server.go.set()
        assert code_of(await tasks[1]) == 250
        await client.close()
    assert [len(server.copies(f"{number}@x")) for number in (1, 2, 3)] == [1, 1, 1]


async def test_nothing_goes_behind_an_end_with_an_answer_for_each_recipient() -> None:
    """One answer too few would be filled by what is said to the next message."""
    async with serving(Watching(lmtp=True, wants=())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, lmtp=True)
        async with asyncio.TaskGroup() as group:
            for number in range(1, 5):
                group.create_task(
                    client.deliver("me@x", [f"{number}@x", f"{number}b@x"], MESSAGE, before_final_dot=Dot())
                )
        await client.close()
    assert server.behind == [b""] * 4


async def test_a_relay_that_loses_what_stands_behind_an_end_is_waited_for_from_then_on() -> None:
    @dataclass(kw_only=True)
    class Losing(Watching):
        """Discards what came behind an end, and ends the connection at the next command."""

        async def _end(self, connection: StepConnection) -> str:
            said = await super()._end(connection)
            if self.behind[-1]:
                await connection.send(f"{said}\r\n")
                connection.cut()
                raise ConnectionAbortedError
            return said

    async with serving(Losing(wants=())) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server)
        said = await send_all(client, *range(1, 21))
        await client.close()
    assert {code_of(one) for one in said.values()} == {250}
    assert [len(server.copies(f"{number}@x")) for number in range(1, 21)] == [1] * 20
    assert sum(map(bool, server.behind)) == 2


@dataclass(kw_only=True)
class Full(Watching):
    """Takes so many connections at once, and greets further ones with 421, or says so to EHLO."""

    takes: int = 2
    most: int = 0
    at: Step | None = Step.BANNER

    async def fault(self, connection: StepConnection, step: Step, who: str = "") -> str | None:
        if step is self.at and self.connections.index(connection) >= self.takes:
            await connection.send("421 4.7.0 too many connections\r\n")
            self.drop(connection)
        if step is Step.MAIL:
            self.most = max(self.most, self.connections.index(connection) + 1)
        return None


@pytest.mark.fault("E06")
@pytest.mark.parametrize("at", [Step.BANNER, Step.HELLO])
async def test_a_relay_that_takes_fewer_connections_gets_all_mails_by_those(at: Step) -> None:
    async with serving(Full(wants=(), at=at)) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, connections=8)
        said = await send_all(client, *range(1, 41))
        # One that stands shows that the relay is there.
        await client.probe()
        await client.close()
    assert {code_of(one) for one in said.values()} == {250}
    assert server.most == 2


async def test_a_relay_that_takes_none_is_away() -> None:
    async with serving(Full(takes=0)) as server, asyncio.timeout(LIMIT_S):
        client = relay_to(server, connections=4)
        said = await send_all(client, *range(1, 11))
        assert {type(one) for one in said.values()} == {RelayFull}
        with pytest.raises(RelayUnreachable):
            await client.probe()
        assert connections_of(client) == 0


async def test_a_look_at_the_relay_while_all_connections_are_in_use_adds_none_for_good() -> None:
    async with watching(go=asyncio.Event()) as (server, client):
        tasks = [asyncio.create_task(send(client, number)) for number in (1, 2, 3, 4)]
        await server.holds.wait()
        for _ in range(3):
            await client.probe()
        assert connections_of(client) <= 2
        assert server.go is not None
        server.go.set()
        assert [code_of(await task) for task in tasks] == [250] * 4
        assert connections_of(client) == 1
