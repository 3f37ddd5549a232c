"""One connection that hears of all mailboxes: what a server may do to it, and what it costs the mailbox that idles."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.boxes import Appeared, Boxes, Chosen, Lines, Names, Place, Rounds, rounds
from service.bus import Bus
from service.clock import SystemClock
from service.contract import Choice, ChoiceKind
from service.errors import MailbusError, Transient
from service.imap import Session
from service.ingest import ImapSource
from service.tasks import TaskGroup
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection
from tests.servers.imap_stub_crowd import NOTIFYING, Crowd
from tests.servers.mailbus import until
from tests.whole.test_rounds import said

ALL = Chosen([Choice(ChoiceKind.PATTERN, "*")], [], {})
# Many times as often as in production: what is asked for again and again shows soon.
LISTEN_EVERY_S = 0.01


class Idler:
    """A mailbox that does nothing but idle."""

    begun = True

    def __init__(self, name: str, place: Place) -> None:
        self.source = ImapSource(
            place,
            host="127.0.0.1",
            username="user",
            mailbox=name,
            idle_s=3600.0,
            poll_s=3600.0,
            clock=SystemClock(),
        )

    async def run(self) -> None:
        while True:
            try:
                await self.source.open()
                while True:
                    await self.source.survey(1, None)
                    self.source.stirred()
                    await self.source.wait(3600.0)
            except Transient:
                await asyncio.sleep(0.01)
            finally:
                await self.source.close()

    def vanished(self) -> None:
        """Nobody waits for it."""

    def gone(self) -> None:
        """Nothing is left of it."""


@asynccontextmanager
async def going_round(
    crowd: Crowd, bus: Bus, monkeypatch: pytest.MonkeyPatch, *, reply_s: float = 5.0
) -> AsyncIterator[list[MailbusError]]:
    """Rounds as in production, begun anew where they fail; gives why they failed."""
    monkeypatch.setattr(rounds, "LISTEN_EVERY_S", LISTEN_EVERY_S)
    clock, failed = SystemClock(), list[MailbusError]()
    crowd.capabilities = NOTIFYING
    lines = Lines(
        lambda: Session.open(options(crowd.port, reply_s=reply_s), clock=clock),
        limit=2,
        pause_s=lambda *_: 0.0,
        clock=clock,
    )

    def make(name: str, place: Place, _appeared: Appeared) -> Idler:
        return Idler(name, place)

    boxes = Boxes(lines, make)
    one = Rounds(
        lines,
        boxes,
        ALL,
        poll_s=3600.0,
        degraded=failed.append,
        names=Names(bus.key_value(bus.subjects.cursors), "box.names"),
        clock=clock,
        where="box",
    )

    async def lead() -> None:
        while True:
            try:
                await one.life(lambda: None)
            except Transient as exc:
                failed.append(exc)

    async with TaskGroup() as group:
        task = group.create_task(boxes.run(lead))
        yield failed
        task.cancel()


async def idling(crowd: Crowd, count: int) -> None:
    await until(lambda: sum(bool(one.idling) for one in crowd.connections) >= count, what=f"{crowd.commands}")


async def test_a_server_that_refuses_is_not_asked_again_at_once_and_nobodys_idle_is_disturbed(
    crowd: Crowd, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.make("Lists")

    async def refuse(connection: Connection, tag: str, _: str) -> bool:
        await connection.send(f"{tag} NO [NOTIFICATIONOVERFLOW] too many\r\n")
        return True

    crowd.hooks["NOTIFY"] = refuse
    async with going_round(crowd, bus, monkeypatch) as failed:
        await until(lambda: bool(said(crowd, "NOTIFY")), what=f"{crowd.commands}")
        await idling(crowd, 2)
        before = len(said(crowd, "IDLE"))
        await asyncio.sleep(20 * LISTEN_EVERY_S)
        assert len(said(crowd, "IDLE")) == before
        assert len(said(crowd, "NOTIFY")) == 1
        assert not failed


async def test_a_server_that_never_answers_costs_one_connection_and_is_done_without(
    crowd: Crowd, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.make("Lists")

    async def ignore(_connection: Connection, _tag: str, _: str) -> bool:
        return True

    crowd.hooks["NOTIFY"] = ignore
    async with going_round(crowd, bus, monkeypatch, reply_s=0.3) as failed:
        await until(lambda: bool(failed), what=f"{crowd.commands}")
        await idling(crowd, 2)
        rounds_now = len(said(crowd, "LIST"))
        await asyncio.sleep(20 * LISTEN_EVERY_S)
        assert len(said(crowd, "NOTIFY")) == 1
        assert len(said(crowd, "LIST")) == rounds_now
        assert len(failed) == 1


async def test_after_an_overflow_the_mailbox_that_idles_there_is_heard_of_as_before(
    crowd: Crowd, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.make("Lists")
    async with going_round(crowd, bus, monkeypatch):
        await until(lambda: bool(crowd.listening), what=f"{crowd.commands}")
        await idling(crowd, 2)
        await crowd.news("* OK [NOTIFICATIONOVERFLOW] too much")
        assert crowd.muted
        await until(lambda: not crowd.muted, what=f"{crowd.commands}")
        await idling(crowd, 2)
        assert "personal" not in said(crowd, "NOTIFY")[-1]
        looked = len(said(crowd, "UID"))
        await crowd.put("INBOX", b"Subject: x\r\n\r\nx\r\n", tell=False)
        await until(lambda: len(said(crowd, "UID")) > looked, what=f"{crowd.commands}")
        assert len(said(crowd, "NOTIFY")) == 2


async def test_a_connection_that_ends_with_the_answer_hears_nothing_and_another_is_asked(
    crowd: Crowd, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.make("Lists")
    monkeypatch.setattr(rounds, "EAR_PAUSE_S", 0.05)

    async def leave(connection: Connection, tag: str, _: str) -> bool:
        if len(said(crowd, "NOTIFY")) > 1:
            return False
        await connection.send(f"{tag} OK done\r\n* BYE that was all\r\n")
        return True

    crowd.hooks["NOTIFY"] = leave
    async with going_round(crowd, bus, monkeypatch) as failed:
        await until(lambda: bool(failed), what=f"{crowd.commands}")
        assert "that was all" in failed[0].what
        await until(lambda: bool(crowd.listening), what=f"{crowd.commands}")
