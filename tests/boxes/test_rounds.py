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
from service.errors import Transient
from service.imap import Figures, ListedMailbox, Overview, Session


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


async def no_connection() -> Session:
    raise AssertionError("a connection of its own")


@pytest.mark.parametrize("choice", [Choice(ChoiceKind.PATTERN, "*"), Choice(ChoiceKind.NAME, "INBOX")])
async def test_names_that_come_and_go_leave_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    there: list[str] = []

    async def overview(_: Session) -> Overview:
        listed = [ListedMailbox(name, "/", frozenset()) for name in there]
        return Overview(listed, {name: Figures(uidvalidity=7, uidnext=1) for name in there})

    monkeypatch.setattr(rounds, "overview", overview)
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
