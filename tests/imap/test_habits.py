"""Habits of servers at login, at opening a mailbox and in IDLE, which docs/quirks.md lists; scripted."""

import re
import traceback

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.errors import PeerError
from service.imap import Session, WritingSession, writing
from service.imap.session import IDLE_ENDED_PAUSE_S
from tests.imap.test_session import options, session
from tests.ingest.harness import Box, following
from tests.ingest.view import watching
from tests.servers.imap_server import PASSWORD
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader


def said(stub: ImapStub) -> list[str]:
    """The commands, by name."""
    return [line.split()[1] for line in stub.commands]


async def test_163_lets_nobody_read_who_has_not_said_who_he_is(imap_stub: ImapStub) -> None:
    # As Coremail greets and answers, which runs NetEase's servers.
    imap_stub.greeting = "* OK Coremail System IMap Server Ready(163com)\r\n"
    imap_stub.capabilities = "IMAP4rev1 XLIST SPECIAL-USE ID LITERAL+ STARTTLS UIDPLUS X-CM-EXT-1"

    async def examine(connection: Connection, tag: str, _: str) -> bool:
        if "ID" in said(imap_stub):
            return False
        await connection.send(f"{tag} NO EXAMINE Unsafe Login. Please contact kefu@188.com for help\r\n")
        return True

    imap_stub.hooks["EXAMINE"] = examine
    async with session(imap_stub.port) as one:
        assert (await one.examine("INBOX")).exists == 0
    # It answers ID before the login, too, and forgets it.
    assert said(imap_stub).index("LOGIN") < said(imap_stub).index("ID") < said(imap_stub).index("EXAMINE")
    (line,) = (line for line in imap_stub.commands if line.split()[1] == "ID")
    assert '("name" "mailbus" "version"' in line
    assert PASSWORD not in line


async def test_plain_that_is_offered_and_not_known_is_done_by_login(imap_stub: ImapStub) -> None:
    imap_stub.capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN"

    async def authenticate(connection: Connection, tag: str, _: str) -> bool:
        await connection.send(f"{tag} BAD unknown command\r\n")
        return True

    imap_stub.hooks["AUTHENTICATE"] = authenticate
    async with session(imap_stub.port) as one:
        await one.noop()
    assert said(imap_stub)[1:3] == ["AUTHENTICATE", "LOGIN"]


class Unhurried(SystemClock):
    """Sleeps at once, and knows for how long it would have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_an_idle_that_the_server_ends_at_once_is_no_loop(imap_stub: ImapStub) -> None:
    async def idle(connection: Connection, tag: str, _: str) -> bool:
        await connection.send(f"+ idling\r\n{tag} OK that was it\r\n")
        return True

    imap_stub.hooks["IDLE"] = idle
    clock = Unhurried()
    one = await Session.open(options(imap_stub.port), clock=clock)
    await one.examine("INBOX")
    assert [await one.idle(60.0), await one.idle(60.0)] == [None, None]
    assert clock.slept == [IDLE_ENDED_PAUSE_S] * 2
    one.abort()


async def test_a_server_that_leaves_uidnext_out_is_followed_by_the_last_messages_uid(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def examine(connection: Connection, tag: str, _: str) -> bool:
        count = len(imap_stub.messages)
        await connection.send(f"* {count} EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n{tag} OK [READ-ONLY] done\r\n")
        return True

    imap_stub.hooks["EXAMINE"] = examine
    imap_stub.messages = {4: b"Subject: old\r\n\r\nx\r\n"}
    async with following(bus, Box(imap_stub.port, initial="new")) as box:
        await watching(box)
        await imap_stub.deliver(9, b"Subject: new\r\n\r\nx\r\n")
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "new"
    assert not box.alarms


async def test_a_login_that_is_never_answered_shows_no_password(imap_stub: ImapStub) -> None:
    async def login(_connection: Connection, _tag: str, _: str) -> bool:
        return True

    imap_stub.hooks["LOGIN"] = login
    with pytest.raises(PeerError, match="no answer to LOGIN") as caught:
        await Session.open(options(imap_stub.port, reply_s=0.1), clock=SystemClock())
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("gives", "size"),
    [
        (10, 25),
        (4, 25),  # fewer bytes at once than were asked for
        (10, 12),  # a size that is a lie
        (10, 99),
        (100, 99),  # pieces are not known: all at once
    ],
)
async def test_a_message_in_pieces_is_whole_whatever_the_server_gives_at_once(
    imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch, gives: int, size: int
) -> None:
    monkeypatch.setattr(writing, "PIECE_BYTES", 10)
    message = bytes(range(65, 90))

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if (wanted := re.search(r"\[\]<(\d+)\.", arguments)) is None:
            return False
        start = int(wanted[1]) if gives < len(message) else 0
        piece = message[start : start + gives]
        await connection.send(f"* 1 FETCH (UID 1 BODY[]<{start}> {{{len(piece)}}}\r\n".encode() + piece + b")\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages = {1: b"x"}
    imap_stub.hooks["UID FETCH"] = fetch
    opened = await WritingSession.open(options(imap_stub.port), clock=SystemClock())
    await opened.examine("INBOX")
    assert b"".join([piece async for piece in opened.pieces(1, size)]) == message
    opened.abort()
