"""`resync`: what a server said nothing of is found when it is asked for, once, and told as events."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from service.bus import Bus
from service.contract import mailbox_id
from tests.commands.conftest import Desk, desk
from tests.ingest.harness import Box, following
from tests.ingest.view import act, mail, quick, seen, view, watching
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader

That = Callable[[str], Dovecot]


def followed_by(one: Desk, box: Box) -> Box:
    """The box whose desk the command knows."""
    box.desk = one.followed.desk(box.mailbox)
    return box


@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot", "old"])
async def test_nothing_new_is_found_and_nothing_is_told_again(
    bus: Bus, dovecot_that: That, prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, [mail(n) for n in (1, 2, 3)])
    reader = BusReader(bus.nc, prefix)
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, quick(server, prefix))
        async with following(bus, box):
            await seen(reader, {1: set(), 2: set(), 3: set()})
            await act(server, prefix, ("STORE", "2", "+FLAGS", r"(\Seen)"))
            await seen(reader, {1: set(), 2: {"$seen"}, 3: set()})
            for body in ({}, {"mailbox": "inbox"}, {"mailbox": mailbox_id("INBOX")}):
                answer = await one.ask("resync", body)
                told = {"received": 0, "changed": 0, "removed": 0, "reset": False}
                assert answer == {
                    "announced": 0,
                    "list": [{"id": mailbox_id("INBOX"), "path": "INBOX", "messages": 3} | told],
                    "more": False,
                }
    assert len((await view(reader)).told) == 4


async def test_what_a_silent_server_changed_is_found_at_once(bus: Bus, imap_stub: ImapStub, prefix: str) -> None:
    """One that tells nothing in IDLE: without being asked, mailbus would look in five minutes."""
    imap_stub.messages = {uid: mail(uid) for uid in (1, 2, 3)}
    reader = BusReader(bus.nc, prefix)
    server = Dovecot.__new__(Dovecot)  # the command itself asks no mail server
    server.host, server.imap = "127.0.0.1", imap_stub.port
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, Box(imap_stub.port))
        async with following(bus, box):
            await seen(reader, {uid: {"$seen"} for uid in (1, 2, 3)})
            await watching(box)
            del imap_stub.messages[1]
            imap_stub.flags[2] = "\\Flagged"
            imap_stub.messages[4] = mail(4)
            answer = await one.ask("resync")
            assert answer["announced"] == 3
            assert [answer["list"][0][key] for key in ("messages", "received", "changed", "removed")] == [3, 1, 1, 1]
            # They are confirmed by then.
            assert (await view(reader)).messages == {2: {"$flagged"}, 3: {"$seen"}, 4: {"$seen"}}
            imap_stub.uidvalidity = 8
            answer = await one.ask("resync")
            assert answer["list"][0]["reset"] is True


async def test_where_there_is_no_idle_the_pause_ends(bus: Bus, imap_stub: ImapStub, prefix: str) -> None:
    imap_stub.capabilities = "IMAP4rev1"
    imap_stub.messages = {1: mail(1)}
    server = Dovecot.__new__(Dovecot)
    server.host, server.imap = "127.0.0.1", imap_stub.port
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, Box(imap_stub.port, poll_s=3600))
        async with following(bus, box):
            await watching(box)
            imap_stub.messages[2] = mail(2)
            assert (await one.ask("resync"))["announced"] == 1


async def test_many_who_ask_at_once_are_answered_by_two_comparisons(bus: Bus, imap_stub: ImapStub, prefix: str) -> None:
    imap_stub.messages = {1: mail(1)}
    server = Dovecot.__new__(Dovecot)
    server.host, server.imap = "127.0.0.1", imap_stub.port
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, Box(imap_stub.port))
        async with following(bus, box):
            await watching(box)
            before = sum("EXAMINE" in line for line in imap_stub.commands)
            answers = await asyncio.gather(*(one.ask("resync") for _ in range(6)))
            assert [answer["announced"] for answer in answers] == [0] * 6
            assert sum("EXAMINE" in line for line in imap_stub.commands) - before <= 2


async def test_a_mailbox_that_vanishes_meanwhile_costs_the_others_nothing(
    bus: Bus, imap_stub: ImapStub, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    imap_stub.messages = {1: mail(1)}
    server = Dovecot.__new__(Dovecot)
    server.host, server.imap = "127.0.0.1", imap_stub.port
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, Box(imap_stub.port))
        async with following(bus, box):
            await watching(box)
            mailboxes = one.followed.mailboxes

            def dropped() -> Sequence[str]:
                """Listed, and gone before it is its turn."""
                one.followed.desk("Gone")
                listed = mailboxes()
                one.followed.drop("Gone")
                monkeypatch.setattr(one.followed, "mailboxes", mailboxes)
                return listed

            monkeypatch.setattr(one.followed, "mailboxes", dropped)
            assert [told["path"] for told in (await one.ask("resync"))["list"]] == ["INBOX"]
            monkeypatch.setattr(one.followed, "mailboxes", dropped)
            assert (await one.refused("resync", {"mailbox": "Gone"}))[0] == "404"


async def test_a_mailbox_that_is_not_connected_is_said_so(bus: Bus, imap_stub: ImapStub, prefix: str) -> None:
    imap_stub.messages = {1: mail(1)}
    server = Dovecot.__new__(Dovecot)
    server.host, server.imap = "127.0.0.1", imap_stub.port
    async with desk(bus, server, prefix) as one:
        box = followed_by(one, Box(imap_stub.port))
        assert await one.refused("resync") == (
            "503",
            [{"field": "mailbox", "message": "INBOX is not connected: ask again later"}],
        )
        async with following(bus, box):
            await watching(box)

            async def fetch(connection: Connection, _tag: str, _arguments: str) -> bool:
                connection.cut()
                return True

            imap_stub.hooks["UID FETCH"] = fetch
            assert (await one.refused("resync"))[0] == "503"  # lost half-way
            del imap_stub.hooks["UID FETCH"]
        assert (await one.refused("resync"))[0] == "503"


async def test_what_cannot_be_asked_is_refused(whole: Desk) -> None:
    whole.followed.desk("INBOX")
    code, problems = await whole.refused("resync", {"mailbox": "Sent"})
    assert (code, problems[0]["field"]) == ("404", "mailbox")
    assert (await whole.refused("resync", {"mailbox": 7}))[1][0]["field"] == "mailbox"
    assert (await whole.refused("resync", {"box": "INBOX"}))[0] == "400"
