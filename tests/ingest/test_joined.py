"""Pages that wait for a commit go in one: in order, each mail once, with the dead letters of each."""

import asyncio
from typing import Any

import pytest

from service.bus import Bus, OutMessage
from service.bus.batch import BATCH_LIMIT_MESSAGES
from service.contract import CURSOR_HEADER
from service.ingest.announce import Announced
from service.ingest.pages import COMMIT_LIMIT_BYTES, COMMIT_LIMIT_MESSAGES, Page
from service.ingest.publish import MailboxLog
from service.ingest.surveyed import Surveyed
from tests.ingest.harness import Box, following
from tests.ingest.view import mail
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, Event, until

LIMIT_S = 20.0
MAILS = 24


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ingest.plan.PAGE_LIMIT_MESSAGES", 2)
    monkeypatch.setattr("service.ingest.pages.COMMIT_LIMIT_MESSAGES", 4)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first mail's commit takes until two pages were joined behind it; the sizes of all commits."""
    commit, join, joined, sizes = MailboxLog.commit, Page.join, asyncio.Event(), list[int]()

    def noted(self: Page, behind: Page) -> bool:
        done = join(self, behind)
        if done:
            joined.set()
        return done

    async def slow(self: MailboxLog, messages: Any, cursor: Any, **more: Any) -> None:
        if cursor.last:
            sizes.append(len(messages))
            async with asyncio.timeout(LIMIT_S):
                await joined.wait()
        await commit(self, messages, cursor, **more)

    monkeypatch.setattr(Page, "join", noted)
    monkeypatch.setattr(MailboxLog, "commit", slow)
    return sizes


async def test_pages_that_wait_for_a_commit_are_committed_in_one(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, waiting: list[int]
) -> None:
    imap_stub.messages = {uid: mail(uid) for uid in range(1, MAILS + 1)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(MAILS)
    events = [event for event in await reader.events() if event.kind == "received"]
    assert [event.body["subject"] for event in events] == [f"mail {uid}" for uid in range(1, MAILS + 1)]
    assert sum(waiting) == MAILS
    assert max(waiting) == 4
    # One cursor a commit, on its last event.
    assert sum(CURSOR_HEADER in event.headers for event in events) == len(waiting)


@pytest.mark.fault("A08")
async def test_what_cannot_be_had_in_a_joined_page_is_among_the_dead_letters(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, waiting: list[int]
) -> None:
    async def not_those(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items:
            return False
        for uid in imap_stub.uids_of(wanted):
            if uid % 3:
                await connection.send(imap_stub.fetch(uid, body=True))
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages = {uid: mail(uid) for uid in range(1, MAILS + 1)}
    imap_stub.hooks["UID FETCH"] = not_those
    async with following(bus, Box(imap_stub.port)):
        events = await reader.wait_received(MAILS)
        letters = await dead_letters(reader, MAILS // 3)
    assert max(waiting) == 4
    gone = [event.headers["ce-id"] for event in events if event.body.get("mailbus", {}).get("problem")]
    assert [event.body.get("subject") is None for event in events] == [uid % 3 == 0 for uid in range(1, MAILS + 1)]
    assert [letter.headers["ce-id"] for letter in letters] == gone


async def test_ended_at_any_commit_each_mail_is_announced_once(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, sizes = MailboxLog.commit, list[int]()

    async def slow(self: MailboxLog, messages: Any, cursor: Any, **more: Any) -> None:
        sizes.append(len(messages))
        await asyncio.sleep(0.05)
        await commit(self, messages, cursor, **more)

    monkeypatch.setattr(MailboxLog, "commit", slow)
    imap_stub.messages = {uid: mail(uid) for uid in range(1, MAILS + 1)}
    box, ends = Box(imap_stub.port), 0
    while box.status.last_uid < MAILS:
        ends += 1
        due = len(sizes) + 1 + ends % 3
        async with following(bus, box):
            await until(lambda due=due: len(sizes) >= due or box.status.last_uid == MAILS, limit_s=LIMIT_S)
    events = [event for event in await reader.events() if event.kind == "received"]
    assert [event.body["subject"] for event in events] == [f"mail {uid}" for uid in range(1, MAILS + 1)]


async def dead_letters(reader: BusReader, count: int) -> list[Event]:
    for _ in range(500):
        if len(letters := await reader.events("DEAD")) >= count:
            return letters
        await asyncio.sleep(0.02)
    pytest.fail("not all dead letters")


def page_of(first: int, count: int, *, dead: list[int], held: int = 0) -> Page:
    page = Page([Surveyed(uid, 1, frozenset(), None) for uid in range(first, first + count)], held, room=0)
    page.announced = Announced([OutMessage("s", b"%d" % uid, {}) for uid in range(first, first + count)], dead)
    return page


def test_joined_pages_have_their_dead_letters_where_their_events_are() -> None:
    page = page_of(1, 2, dead=[0], held=3)
    assert page.join(page_of(3, 2, dead=[1], held=4))
    assert [page.announced.events[at].payload for at in page.announced.dead] == [b"1", b"4"]
    assert (page.wanted[-1].uid, page.held) == (4, 7)


@pytest.mark.parametrize(("count", "held"), [(3, 0), (1, COMMIT_LIMIT_BYTES)])
def test_a_page_that_would_make_a_commit_too_large_goes_alone(count: int, held: int) -> None:
    page, behind = page_of(1, 2, dead=[], held=1), page_of(3, count, dead=[0], held=held)
    assert not page.join(behind)
    assert (len(page.announced.events), page.announced.dead, page.held) == (2, [], 1)
    assert (len(behind.announced.events), behind.announced.dead, behind.held) == (count, [0], held)


def test_two_full_pages_fit_an_atomic_batch() -> None:
    assert COMMIT_LIMIT_MESSAGES <= BATCH_LIMIT_MESSAGES
