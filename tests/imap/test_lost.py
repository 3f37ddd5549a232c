"""Connections that are lost: thousands in the same instant hold up nobody, and nothing of a dead one stays."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from service.errors import PeerError, Transient
from service.imap import Session
from service.imap.protocol import ImapProtocol
from service.imap.wire import WireLimits
from service.turns import AT_ONCE, Turns
from tests.imap.test_session import session
from tests.servers.imap_stub import Connection, ImapStub


@pytest.mark.fault("F07")
async def test_thousands_that_are_lost_in_one_turn_of_the_loop_are_heard_of_a_few_in_a_turn() -> None:
    losses = Turns()
    protocols = [ImapProtocol(WireLimits(literal_bytes=1), losses=losses, where=str(n)) for n in range(5 * AT_ONCE)]
    for protocol in protocols:
        protocol.connection_lost(None)
    heard = [0]
    async with asyncio.timeout(10):
        while heard[-1] < len(protocols):
            await asyncio.sleep(0)
            heard.append(sum(protocol.failure is not None for protocol in protocols))
    assert max(after - before for before, after in itertools.pairwise(heard)) <= AT_ONCE
    assert str(protocols[0].failure) == "connection lost: the server closed the connection [0]"


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.fault("F09")
async def test_a_dead_connection_is_gone_as_soon_as_nobody_holds_it(imap_stub: ImapStub, no_collector: None) -> None:
    async def idle(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send("+ idling\r\n")
        connection.cut()
        return True

    async def lived() -> SimpleNamespace:
        async with session(imap_stub.port) as opened:
            await opened.examine("INBOX")
            with pytest.raises(Transient, match="connection lost"):
                await opened.idle(60)
            return SimpleNamespace(session=weakref.ref(opened), protocol=weakref.ref(opened.protocol))

    imap_stub.hooks["IDLE"] = idle
    left = await lived()
    held: list[Session | ImapProtocol | None] = [None]
    async with asyncio.timeout(10):
        # What the loop itself still has in hand of it ends within a few turns.
        while (held := [left.session(), left.protocol()]) != [None, None]:
            held.clear()
            await asyncio.sleep(0.01)
    assert held == [None, None]


@pytest.mark.fault("A13")
async def test_a_server_that_talks_for_ever_and_never_answers_is_given_up(
    imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imap.connection.COMMAND_LIMIT_S", 0.5)

    async def noop(connection: Connection, _tag: str, _arguments: str) -> bool:
        while True:
            await connection.send("* OK still here\r\n")
            await asyncio.sleep(0.05)

    imap_stub.hooks["NOOP"] = noop
    async with session(imap_stub.port, reply_s=30.0) as opened:
        with pytest.raises(PeerError, match="NOOP took over"):
            await opened.noop()
        with pytest.raises(Transient):
            await opened.noop()
