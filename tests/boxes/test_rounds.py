"""What is remembered of mailboxes from round to round: of those that are followed, and of no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from service.boxes import Chosen, Lines, Names, Rounds, rounds
from service.boxes.boxes import Boxes
from service.bus import Bus
from service.clock import SystemClock
from service.contract import Choice, ChoiceKind
from service.errors import PeerError, Transient
from service.imap import Figures, ListedMailbox, Overview, Session
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection
from tests.servers.imap_stub_crowd import Crowd


class Still:
    """A mailbox in which nothing happens."""

    begun = True

    async def run(self) -> None:
        await asyncio.Event().wait()

    def vanished(self) -> None:
        """Nobody waits for it."""

    def gone(self) -> None:
        """Nothing is left of it."""


class Own(Lines):
    """One connection, which offers LIST-STATUS."""

    @asynccontextmanager
    async def borrow(self, own: object) -> AsyncIterator[Session]:
        yield cast(Session, SimpleNamespace(offers=lambda name: name == "LIST-STATUS"))


class Lent(Lines):
    """A connection to a server, another one where it was left."""

    session: Session

    @asynccontextmanager
    async def borrow(self, own: object) -> AsyncIterator[Session]:
        if not hasattr(self, "session") or self.session.protocol.failure is not None:
            self.session = await self._connect()
        yield self.session


async def no_connection() -> Session:
    raise AssertionError("a connection of its own")


@pytest.mark.parametrize("choice", [Choice(ChoiceKind.PATTERN, "*"), Choice(ChoiceKind.NAME, "INBOX")])
async def test_names_that_come_and_go_leave_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    there: list[str] = []

    async def overview(_: Session) -> Overview:
        listed = [ListedMailbox(name, "/", frozenset()) for name in there]
        return Overview(listed, {name: Figures(uidvalidity=7, uidnext=1) for name in there})

    async def none_left_out(_session: Session, _names: object) -> set[str]:
        return set()

    monkeypatch.setattr(rounds, "overview", overview)
    monkeypatch.setattr(rounds, "left_out", none_left_out)
    clock = SystemClock()
    lines = Own(no_connection, limit=2, pause_s=lambda *_: 0.0, clock=clock)
    boxes = Boxes(lines, lambda *_: Still())
    one = Rounds(
        lines,
        boxes,
        Chosen([choice], [], {}),
        poll_s=3600.0,
        degraded=lambda _: None,
        names=Names(bus.key_value(bus.subjects.cursors), "box.names"),
        clock=clock,
        where="box",
    )

    async def lead() -> None:
        boxes.follow(["INBOX"], new=lambda _: False)
        for number in range(5):
            there[:] = ["INBOX", f"Lists/{number}"]
            await one._look()
        raise Transient("enough")

    try:
        await boxes.run(lead)
    except* Transient:
        pass
    assert set(one._asked_at) <= {"INBOX", "Lists/4"}
    assert "INBOX" in one._asked_at


@pytest.mark.fault("A18")
async def test_a_list_that_leaves_out_what_is_there_is_asked_again_on_another_connection(
    bus: Bus, crowd: Crowd
) -> None:
    crowd.make("Kept")
    lying: list[Connection] = []

    async def listed(connection: Connection, tag: str, arguments: str) -> bool:
        if connection not in lying or '"*"' not in arguments:
            return False
        await connection.send(f'* LIST () "/" INBOX\r\n{tag} OK done\r\n')
        return True

    crowd.hooks["LIST"] = listed
    clock = SystemClock()
    lines = Lent(lambda: Session.open(options(crowd.port), clock=clock), limit=2, pause_s=lambda *_: 0.0, clock=clock)
    boxes = Boxes(lines, lambda *_: Still())
    one = Rounds(
        lines,
        boxes,
        Chosen([Choice(ChoiceKind.PATTERN, "*")], [], {}),
        poll_s=3600.0,
        degraded=lambda _: None,
        names=Names(bus.key_value(bus.subjects.cursors), "box.names"),
        clock=clock,
        where="box",
    )

    async def lead() -> None:
        await one._look()
        assert boxes.names == {"INBOX", "Kept"}
        for _ in range(2):
            lying[:] = crowd.connections
            with pytest.raises(PeerError, match="leaves out 1 mailboxes"):
                await one._look()
            await one._look()
            assert boxes.names == {"INBOX", "Kept"}
        # Whatever a server says on each connection is believed.
        lying[:] = crowd.connections
        with pytest.raises(PeerError, match="leaves out 1 mailboxes"):
            await one._look()
        lines.session = await lines._connect()
        lying[:] = crowd.connections
        await one._look()
        assert boxes.names == {"INBOX"}
        # And what is deleted is gone at once.
        lying.clear()
        await one._look()
        del crowd.boxes["Kept"]
        await one._look()
        assert boxes.names == {"INBOX"}
        lines.session.abort()
        raise Transient("enough")

    try:
        await boxes.run(lead)
    except* Transient:
        pass
