"""The lives of mailboxes: begun as they appear, told first that they have vanished and ended then."""

import asyncio

from service.boxes import Appeared, Boxes, Lines, Place
from service.clock import SystemClock
from service.errors import Transient
from service.imap import Session
from service.ingest import Desks
from service.tasks import TaskGroup
from tests.servers.mailbus import until


async def never() -> Session:
    raise AssertionError("nobody needs a connection")


class Compared:
    """A mailbox that is compared for ever, for whoever asks."""

    begun = True

    def __init__(self, name: str, desks: Desks, ended: list[str]) -> None:
        self.name = name
        self.desks = desks
        self.desk = desks.desk(name)
        self.ended = ended

    async def run(self) -> None:
        self.desk.begin(lambda: None)
        try:
            await asyncio.Event().wait()
        finally:
            self.desk.end()

    def vanished(self) -> None:
        self.desks.drop(self.name)

    def gone(self) -> None:
        self.ended.append(self.name)


async def test_who_waits_for_a_mailbox_that_vanishes_finds_that_it_is_followed_no_more() -> None:
    desks, ended = Desks(), list[str]()
    lines = Lines(never, limit=2, pause_s=lambda *_: 0.0, clock=SystemClock())

    def make(name: str, _place: Place, _appeared: Appeared) -> Compared:
        return Compared(name, desks, ended)

    boxes, found = Boxes(lines, make), list[list[str]]()

    async def asks() -> None:
        try:
            await desks.resync("Gone")
        except Transient:
            found.append(list(desks.mailboxes()))

    async def lead() -> None:
        boxes.follow(["INBOX", "Gone"], new=lambda _: False)
        async with TaskGroup() as group:
            await asyncio.sleep(0)  # they begin
            group.create_task(asks(), name="resync")
            await asyncio.sleep(0)
            boxes.follow(["INBOX"], new=lambda _: False)
            await until(lambda: bool(found), what="an answer")
        raise Transient("enough")

    try:
        await boxes.run(lead)
    except* Transient:
        pass
    assert found == [["INBOX"]]
    assert ended == ["Gone"]
