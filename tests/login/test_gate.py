"""One try at a wrong password for all mailboxes of an account, and none for five minutes. A clock of our own."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import AuthRefused, MailbusError, Transient
from service.login import LOGIN_PAUSE_S, LoginGate
from tests.servers.clock import FakeClock


class Server:
    """Counts tries; each waits until it is let go, and ends as `ending` says."""

    def __init__(self, ending: MailbusError | None = None) -> None:
        self.ending = ending
        self.tries = 0
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()

    async def login(self) -> str:
        self.tries += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            await self.go.wait()
            if self.ending is not None:
                raise self.ending
            return "in"
        finally:
            self.at_once -= 1


async def all_of(gate: LoginGate, server: Server, clock: FakeClock, count: int = 10) -> list[object]:
    asked: list[Awaitable[object]] = [gate.through(server.login, clock) for _ in range(count)]
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.fault("E08")
async def test_a_wrong_password_is_tried_once_for_all_and_again_after_the_pause() -> None:
    gate, clock, server = LoginGate(), FakeClock(), Server(AuthRefused("no", where="x", remedy="do"))
    found = await all_of(gate, server, clock)
    assert [str(one) for one in found] == ["no [x]: do"] * 10
    assert server.tries == 1
    await clock.advance(LOGIN_PAUSE_S - 1)
    await all_of(gate, server, clock)
    assert server.tries == 1
    await clock.advance(1)
    await all_of(gate, server, clock)
    assert server.tries == 2


async def test_once_one_is_in_the_others_come_side_by_side() -> None:
    gate, clock, server = LoginGate(), FakeClock(), Server()
    assert await all_of(gate, server, clock) == ["in"] * 10
    assert server.tries == 10
    await all_of(gate, server, clock)
    assert server.most_at_once == 10


async def test_a_server_that_is_away_is_asked_by_one_and_at_once_again() -> None:
    gate, clock, server = LoginGate(), FakeClock(), Server(Transient("away", retry_after_s=7))
    found = await all_of(gate, server, clock)
    assert [one.retry_after_s for one in found if isinstance(one, Transient)] == [7] * 10
    assert server.tries == 1
    server.ending = None
    assert await all_of(gate, server, clock) == ["in"] * 10


async def test_a_password_that_was_changed_meanwhile_is_tried_once_when_all_come_back() -> None:
    gate, clock, server = LoginGate(), FakeClock(), Server()
    await all_of(gate, server, clock)
    server.ending, server.tries = AuthRefused("no"), 0
    await clock.advance(3600)
    await all_of(gate, server, clock)
    assert server.tries == 1


async def test_whoever_is_cancelled_while_he_tries_leaves_the_turn_to_the_next() -> None:
    gate, clock, server = LoginGate(), FakeClock(), Server()
    server.go.clear()
    first = asyncio.ensure_future(gate.through(server.login, clock))
    await clock.settle()
    second = asyncio.ensure_future(gate.through(server.login, clock))
    await clock.settle()
    assert server.tries == 1
    first.cancel()
    server.go.set()
    assert await second == "in"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_bug_goes_through_as_it_is() -> None:
    async def broken() -> None:
        raise KeyError("x")

    gate: Callable[..., Awaitable[None]] = LoginGate().through
    with pytest.raises(KeyError):
        await gate(broken, FakeClock())
