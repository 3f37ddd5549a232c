"""Connections that are lent: whoever wants one gets one that idles, whatever becomes of the one it asked for first."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from service.boxes import Lines, Place
from service.clock import SystemClock
from service.imap import Figures, Session
from tests.servers.mailbus import until


class Server:
    """Connections that are open until they are aborted."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    async def connect(self) -> Session:
        protocol = SimpleNamespace(failure=None)

        def abort() -> None:
            protocol.failure = "aborted"

        made = cast(Session, SimpleNamespace(protocol=protocol, nudge=lambda: None, abort=abort))
        self.sessions.append(made)
        return made


@pytest.fixture
def lines() -> Iterator[Lines]:
    server = Server()
    yield Lines(server.connect, limit=2, pause_s=lambda *_: 0.0, clock=SystemClock())
    assert len(server.sessions) == 2


async def idling(lines: Lines, order: int) -> tuple[Place, Session]:
    place = lines.place(order)
    session = (await place.take()).session
    place.stand()
    return place, session


async def test_whoever_asked_a_mailbox_that_goes_to_work_before_it_hears_borrows_another(lines: Lines) -> None:
    first, other = await idling(lines, 0)
    least, _ = await idling(lines, 1)
    borrowed: list[Session] = []

    async def borrow() -> None:
        async with lines.borrow(lines.place(-1)) as session:
            borrowed.append(session)

    async with asyncio.TaskGroup() as group:
        group.create_task(borrow())
        await until(lambda: not least.lends)
        least.work()
        await until(lambda: not first.lends)
        await first.lend()
    assert borrowed == [other]


async def test_whoever_has_borrowed_a_connection_keeps_it_while_another_goes_to_work(lines: Lines) -> None:
    first, _ = await idling(lines, 0)
    least, asked = await idling(lines, 1)
    done = asyncio.Event()
    borrowed: list[Session] = []

    async def borrow() -> None:
        async with lines.borrow(lines.place(-1)) as session:
            borrowed.append(session)
            await done.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(borrow())
        await until(lambda: not least.lends)
        lending = group.create_task(least.lend())
        await until(lambda: bool(borrowed))
        first.work()
        assert not lending.done()
        done.set()
        await lending
        assert least.lends
    assert borrowed == [asked]


@pytest.mark.parametrize("lost", [False, True])
async def test_whoever_asked_for_a_connection_that_passes_on_borrows_another(lines: Lines, lost: bool) -> None:
    first, other = await idling(lines, 0)
    least, asked = await idling(lines, 1)
    borrowed: list[Session] = []

    async def borrow() -> None:
        async with lines.borrow(lines.place(-1)) as session:
            borrowed.append(session)

    async with asyncio.TaskGroup() as group:
        group.create_task(borrow())
        await until(lambda: not least.lends)
        if lost:
            asked.abort()
            await least.leave()
        else:
            # Its connection is another mailbox's from now on, which works on it for long.
            taking = group.create_task(lines.place(2).take())
            await until(lambda: least.displaced)
            resting = group.create_task(least.rest(Figures(), 3600.0))
            assert (await taking).session is asked
            resting.cancel()
        await until(lambda: not first.lends)
        await first.lend()
    assert borrowed == [other]
