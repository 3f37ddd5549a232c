"""Window behind window without a pause between: the next is surveyed early; each mail is announced once, in order."""

import asyncio
from typing import Any

import pytest

from service.bus import Bus
from service.ingest.publish import MailboxLog
from tests.ingest.harness import Box, following
from tests.ingest.view import mail, seen, watching
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def of_six(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first window has six UIDs, as every other; a page has two messages."""
    monkeypatch.setattr("service.ingest.windows.SURVEY_LIMIT_UIDS", 6)
    monkeypatch.setattr("service.ingest.windows.FIRST_SHARE", 1)
    monkeypatch.setattr("service.ingest.plan.PAGE_LIMIT_MESSAGES", 2)


async def subjects(reader: BusReader) -> list[str]:
    return [event.body["subject"] for event in await reader.events() if event.kind == "received"]


async def test_a_window_is_surveyed_while_the_pages_of_the_one_before_wait_for_their_commit(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    imap_stub.messages = {uid: mail(uid) for uid in range(1, 31)}
    commit, second = MailboxLog.commit, asyncio.Event()

    async def note_survey(_connection: Connection, _tag: str, arguments: str) -> bool:
        if arguments.startswith("7:"):
            second.set()
        return False

    async def after_the_next_survey(self: MailboxLog, messages: Any, cursor: Any, **more: Any) -> None:
        # The last page of the first window: nothing behind it is announced yet.
        if cursor.last == 6:
            async with asyncio.timeout(LIMIT_S):
                await second.wait()
        await commit(self, messages, cursor, **more)

    imap_stub.hooks["UID FETCH"] = note_survey
    monkeypatch.setattr(MailboxLog, "commit", after_the_next_survey)
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(30)
    assert second.is_set()
    assert await subjects(reader) == [f"mail {uid}" for uid in range(1, 31)]


async def test_ended_anywhere_between_windows_it_goes_on_where_it_was(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    # Windows in which there is nothing among them.
    uids = [*range(1, 20), *range(40, 60)]
    imap_stub.messages = {uid: mail(uid) for uid in uids}
    for count in range(2, 39, 5):
        async with following(bus, Box(imap_stub.port)):
            await reader.wait_received(count)
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)
    assert await subjects(reader) == [f"mail {uid}" for uid in uids]


async def test_what_is_known_is_saved_between_windows(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.memory.BUSY_EVENTS_LIMIT", 4)
    imap_stub.messages = {uid: mail(uid) for uid in range(1, 31)}
    imap_stub.flags = dict.fromkeys(range(1, 31, 3), "\\Flagged")
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(30)
    del imap_stub.messages[17]
    imap_stub.flags[18] = "\\Flagged"
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)
    flagged = {*range(1, 31, 3), 18}
    await seen(reader, {uid: {"$flagged"} if uid in flagged else {"$seen"} for uid in range(1, 31) if uid != 17})


@pytest.mark.fault("A09")
@pytest.mark.parametrize("command", ["7:", "11:12 (UID BODY"])
async def test_what_is_read_is_announced_though_the_connection_ends_before_its_commit(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    imap_stub.messages = {uid: mail(uid) for uid in range(1, 13)}
    commit, cut = MailboxLog.commit, asyncio.Event()

    async def cut_once(connection: Connection, _tag: str, arguments: str) -> bool:
        if cut.is_set() or not arguments.startswith(command):
            return False
        connection.cut()
        cut.set()
        return True

    async def after_the_cut(self: MailboxLog, messages: Any, cursor: Any, **more: Any) -> None:
        # Two pages wait to be parsed, one to be stored, one to be committed.
        if cursor.last >= 2:
            async with asyncio.timeout(LIMIT_S):
                await cut.wait()
        await commit(self, messages, cursor, **more)

    imap_stub.hooks["UID FETCH"] = cut_once
    monkeypatch.setattr(MailboxLog, "commit", after_the_cut)
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(12)
    assert await subjects(reader) == [f"mail {uid}" for uid in range(1, 13)]
    read = [line.partition(" ")[2] for line in imap_stub.commands if "BODY" in line]
    assert len(read) == len(set(read))
