"""A mailbox whose name another one of the same UIDVALIDITY has by now, unheard by those who have it open."""

import imaplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.boxes import Lines
from service.clock import SystemClock
from service.errors import Transient
from service.imap import Session
from service.ingest import ImapSource
from tests.ingest.harness import Box, session_options
from tests.ingest.view import mail
from tests.servers.cyrus import Cyrus
from tests.servers.imap_stub import Connection, ImapStub


@asynccontextmanager
async def opened(box: Box, mailbox: str, shares: Callable[[int], bool]) -> AsyncIterator[ImapSource]:
    clock = SystemClock()
    lines = Lines(lambda: Session.open(session_options(box), clock=clock), limit=1, pause_s=lambda *_: 0.0, clock=clock)
    source = ImapSource(
        lines.place(0),
        host=box.host,
        username=box.user,
        mailbox=mailbox,
        idle_s=60.0,
        poll_s=60.0,
        clock=clock,
        shares=shares,
    )
    try:
        yield source
    finally:
        await source.close()


def make_twins(client: imaplib.IMAP4) -> None:
    """One and Two, of one UIDVALIDITY: Cyrus counts it in seconds."""
    while True:
        for name in ("One", "Two"):
            client.create(name)
            client.append(name, "", "", mail(1))
        said = [client.status(name, "(UIDVALIDITY)")[1][0].partition(b"(")[2] for name in ("One", "Two")]
        if said[0] == said[1]:
            return
        for name in ("One", "Two"):
            client.delete(name)


@pytest.mark.fault("A18")
async def test_nothing_is_read_of_a_mailbox_that_has_the_name_by_now(cyrus: Cyrus, prefix: str) -> None:
    with cyrus.client(prefix) as client:
        make_twins(client)
        async with opened(Box(cyrus.imap, user=prefix), "One", lambda _: True) as source:
            first = await source.open()
            assert not await source.replaced()
            assert await source.wait(0.1) is None
            for old, new in (("One", "Third"), ("Two", "One"), ("Third", "Two")):
                client.rename(old, new)
            client.append("One", "", "", mail(2))
            assert await source.replaced()
            with pytest.raises(Transient, match="another mailbox"):
                await source.fetch(await source.survey(1, None), lambda _: None, whole=True)
            assert (await source.open()).mailbox_id != first.mailbox_id
            assert not await source.replaced()
            await source.fetch(await source.survey(1, None), lambda _: None, whole=True)


class Ids:
    """A server that gives a MAILBOXID when a mailbox is opened, and other ones by STATUS."""

    def __init__(self, stub: ImapStub, said: str) -> None:
        self.stub = stub
        self.said = said
        stub.hooks["EXAMINE"] = self.examine
        stub.hooks["STATUS"] = self.status

    async def examine(self, connection: Connection, _tag: str, _arguments: str) -> bool:
        await connection.send("* OK [MAILBOXID (F1)] it\r\n")
        return False

    async def status(self, connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"* STATUS INBOX (MAILBOXID {self.said})\r\n{tag} OK done\r\n")
        return True

    @property
    def asked(self) -> int:
        return sum(" STATUS " in line for line in self.stub.commands)


@pytest.mark.parametrize("said", ["(F1)", "(\\xd9\\xe6)", "F2", "()", "NIL"])
async def test_what_is_no_other_id_says_nothing(imap_stub: ImapStub, said: str) -> None:
    Ids(imap_stub, said)
    async with opened(Box(imap_stub.port), "INBOX", lambda _: True) as source:
        await source.open()
        assert not await source.replaced()


async def test_a_server_that_is_wrong_about_it_is_not_asked_again(imap_stub: ImapStub) -> None:
    server = Ids(imap_stub, "(F2)")
    async with opened(Box(imap_stub.port), "INBOX", lambda _: True) as source:
        await source.open()
        assert await source.replaced()
        await source.open()
        assert not await source.replaced()
    assert server.asked == 1


async def test_it_is_asked_only_where_another_mailbox_has_its_uidvalidity(imap_stub: ImapStub) -> None:
    server = Ids(imap_stub, "(F2)")
    async with opened(Box(imap_stub.port), "INBOX", lambda _: False) as source:
        await source.open()
        assert not await source.replaced()
    assert server.asked == 0
