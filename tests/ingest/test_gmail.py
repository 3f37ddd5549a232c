"""Gmail's labels and identities, and EMAILID elsewhere: one mail is one mail, in however many mailboxes it is."""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import mailbox_id
from service.errors import Transient
from service.ingest import Allowance
from service.observe import metrics
from tests.ingest.harness import Box, following
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.imap_stub_gmail import ALL, TRASH, Gmail
from tests.servers.mailbus import BusReader, Event, until


def mail(number: int) -> bytes:
    return f"Subject: mail {number}\r\n\r\nbody {number}\r\n".encode()


def ids(*names: str) -> dict[str, bool]:
    return dict.fromkeys(map(mailbox_id, names), True)


async def until_events(reader: BusReader, kind: str, count: int) -> list[Event]:
    """So many events of a kind, all of them."""
    async with asyncio.timeout(20):
        while True:
            found = [event for event in await reader.events() if event.kind == kind]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def watching(*boxes: Box) -> None:
    for box in boxes:
        await until(lambda: box.status.state == "watching", what=box.mailbox)  # noqa: B023


async def follow(stack: AsyncExitStack, bus: Bus, gmail: Gmail, *mailboxes: str) -> list[Box]:
    """Mailboxes of one account, each after those before it."""
    boxes = [Box(gmail.port, mailbox=name, first=mailboxes[:at]) for at, name in enumerate(mailboxes)]
    for box in boxes:
        await stack.enter_async_context(following(bus, box))
    return boxes


@pytest.mark.fault("A17")
async def test_a_mail_with_labels_is_received_once_with_its_identity_mailboxes_and_keywords(
    gmail: Gmail, bus: Bus, reader: BusReader
) -> None:
    letter = await gmail.put(mail(1), "\\Inbox", "\\Important", "Work", "Büro", thread=77)
    async with AsyncExitStack() as stack:
        boxes = await follow(stack, bus, gmail, ALL, "INBOX", "Work")
        await watching(*boxes)
        await gmail.put(mail(2), "Work")
        await reader.wait_received(2)
        await watching(*boxes)
    one, two = await reader.received()
    assert one.body["mailbus"]["emailId"] == str(letter.msgid)
    assert one.body["threadId"] == "77"
    assert one.body["keywords"] == dict.fromkeys(["$important", "b&apw-ro", "work"], True)
    assert one.body["mailboxIds"] == ids(ALL, "INBOX", "Work", "Büro", "[Gmail]/Important")
    assert two.body["mailboxIds"] == ids(ALL, "Work")


@pytest.mark.fault("A17")
async def test_archiving_is_removed_from_the_inbox_and_received_where_else_it_is_followed(
    gmail: Gmail, bus: Bus, reader: BusReader
) -> None:
    violations = metrics.PROTOCOL_VIOLATION.labels(kind="late_uid")._value.get()
    letter = await gmail.put(mail(1), "\\Inbox", "Work")
    async with AsyncExitStack() as stack:
        boxes = await follow(stack, bus, gmail, "INBOX", "Work")
        await reader.wait_received(1)
        await watching(*boxes)
        await gmail.label(letter, "Work")
        (removed,) = await until_events(reader, "removed", 1)
        first, second = await reader.wait_received(2)
    assert removed.body["mailboxIds"] == ids("INBOX")
    assert removed.body["id"] == first.body["id"] != second.body["id"]
    assert first.body["mailbus"]["emailId"] == second.body["mailbus"]["emailId"]
    assert second.body["mailboxIds"] == ids("Work", ALL)
    assert metrics.PROTOCOL_VIOLATION.labels(kind="late_uid")._value.get() == violations


@pytest.mark.fault("A17")
async def test_a_label_that_comes_or_goes_is_a_change_of_mailboxes_and_keywords(
    gmail: Gmail, bus: Bus, reader: BusReader
) -> None:
    letter = await gmail.put(mail(1), "\\Inbox")
    box = Box(gmail.port, mailbox=ALL)
    async with following(bus, box):
        await reader.wait_received(1)
        await watching(box)
        await gmail.label(letter, "\\Inbox", "Work")
        await until_events(reader, "changed", 1)
    # While it is away too.
    await gmail.label(letter)
    async with following(bus, Box(gmail.port, mailbox=ALL)):
        one, two = await until_events(reader, "changed", 2)
    assert (one.body["mailboxIds"], one.body["keywords"]) == (ids(ALL, "INBOX", "Work"), {"work": True})
    assert (two.body["mailboxIds"], two.body["keywords"]) == (ids(ALL), {})


@pytest.mark.fault("A17")
async def test_trash_is_another_mailbox_and_the_same_mail(gmail: Gmail, bus: Bus, reader: BusReader) -> None:
    letter = await gmail.put(mail(1), "\\Inbox")
    async with AsyncExitStack() as stack:
        boxes = await follow(stack, bus, gmail, ALL, TRASH)
        await reader.wait_received(1)
        await watching(*boxes)
        await gmail.label(letter, "\\Trash")
        await until_events(reader, "removed", 1)
        first, second = await reader.wait_received(2)
    assert first.body["mailbus"]["emailId"] == second.body["mailbus"]["emailId"]
    assert second.body["mailboxIds"] == ids(TRASH)


# -- bandwidth ------------------------------------------------------------------------------------------------


@pytest.mark.fault("A19")
@pytest.mark.parametrize(
    "refusing",
    [
        "NO [THROTTLED] Account exceeded command or bandwidth limits. (Failure)",
        "NO Account exceeded command or bandwidth limits. (Failure)",
        "NO Request is throttled. Suggested Backoff Time: 100 milliseconds",
    ],
)
async def test_a_throttled_fetch_is_waited_for_and_no_mail_is_called_unavailable(
    gmail: Gmail, bus: Bus, reader: BusReader, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imap.refusals.THROTTLED_PAUSE_S", 0.05)
    await gmail.put(mail(1), "\\Inbox")
    gmail.refusing = refusing
    box = Box(gmail.port)
    async with following(bus, box):
        await until(lambda: len(box.states) > 5)
        gmail.refusing = ""
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "mail 1"
    error = box.states[0][1]
    assert isinstance(error, Transient)
    assert error.retry_after_s in {0.05, 0.1}


class Moved(SystemClock):
    """A clock that is set."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.fault("A19")
def test_no_more_is_read_in_a_day_than_the_provider_allows() -> None:
    clock = Moved()
    allowance = Allowance(1000, clock)
    read: list[tuple[float, int]] = []
    for minute in range(3 * 24 * 60):
        clock.seconds = minute * 60.0
        with suppress(Transient):
            allowance.take(10)
            read.append((clock.seconds, 10))
    for start, _ in read[::7]:
        assert sum(size for at, size in read if start <= at < start + 86400) <= 1000 + 10
    assert sum(size for _, size in read) > 1800


@pytest.mark.fault("A19")
async def test_what_is_beyond_the_days_share_waits_and_says_so(gmail: Gmail, bus: Bus, reader: BusReader) -> None:
    clock = Moved()
    for number in (1, 2):
        await gmail.put(mail(number), "\\Inbox")
    allowance = Allowance(2, clock)
    box = Box(gmail.port, allowance=allowance)
    async with following(bus, box):
        await reader.wait_received(2)  # one page, read as a whole
        await watching(box)
        await gmail.put(mail(3), "\\Inbox")
        await until(lambda: bool(box.states))
        assert "may be read a day are read" in str(box.states[0][1])
        clock.seconds = 200 * 86400.0
    box = Box(gmail.port, allowance=allowance)
    async with following(bus, box):
        assert len(await reader.wait_received(3)) == 3


# -- RFC 8474 -------------------------------------------------------------------------------------------------


def with_objectid(stub: ImapStub, emails: dict[int, str]) -> None:
    """The stub's survey says EMAILID and THREADID; `emails` by UID."""

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "EMAILID" not in items:
            return False
        for uid in stub.uids_of(wanted):
            line = stub.fetch(uid, body=False).decode()
            thread = "(Tabc)" if uid % 2 else "NIL"
            await connection.send(line.replace(")\r\n", f" EMAILID ({emails[uid]}) THREADID {thread})\r\n"))
        await connection.send(f"{tag} OK done\r\n")
        return True

    stub.capabilities += " OBJECTID"
    stub.hooks["UID FETCH"] = fetch


async def test_a_mail_has_the_servers_identity_and_thread(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {1: mail(1), 2: mail(2)}
    with_objectid(imap_stub, {1: "M6d99ac3275bb4e", 2: "M5fdc09b49ea703"})
    async with following(bus, Box(imap_stub.port)):
        one, two = await reader.wait_received(2)
    assert (one.body["mailbus"]["emailId"], one.body["threadId"]) == ("M6d99ac3275bb4e", "Tabc")
    assert two.body["mailbus"]["emailId"] == "M5fdc09b49ea703"
    assert "threadId" not in two.body


async def test_a_server_that_offers_identities_and_does_not_know_them_is_read_without(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "EMAILID" in arguments:
            await connection.send(f"{tag} BAD Unknown parameter\r\n")
        return "EMAILID" in arguments

    imap_stub.messages = {1: mail(1)}
    imap_stub.capabilities += " OBJECTID"
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)):
        (event,) = await reader.wait_received(1)
    assert "emailId" not in event.body["mailbus"]
    assert sum("EMAILID" in line for line in imap_stub.commands) == 1


@pytest.mark.fault("A05")
async def test_what_has_the_same_emailid_is_recognised_although_its_size_changed(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: mail(1), 2: mail(2)}
    emails = {1: "Mone", 2: "Mtwo"}
    with_objectid(imap_stub, emails)
    async with following(bus, Box(imap_stub.port, initial="all")):
        await reader.wait_received(2)
    # Numbered anew, each a little larger; one is new and has the size and date that another had.
    imap_stub.uidvalidity = 8
    imap_stub.messages = {1: mail(2) + b"footer\r\n", 2: mail(3), 3: mail(1) + b"footer\r\n"}
    emails |= {1: "Mtwo", 2: "Mthree", 3: "Mone"}
    box = Box(imap_stub.port, initial="new")
    async with following(bus, box):
        await reader.wait_received(3)
        await watching(box)
        events = await reader.received()
    assert [event.body["subject"] for event in events] == ["mail 1", "mail 2", "mail 3"]
