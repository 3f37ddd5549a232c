"""Two mailboxes that swap their names while mail comes for both of them: each mail is told once. On real Cyrus."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.ingest.view import mail
from tests.servers.cyrus import Cyrus
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.whole.test_boxes import counted, heard, make
from tests.whole.test_names import settled

Maker = Callable[..., Mailbus]


@pytest.mark.fault("A18")
# How long a name is between two mailboxes: looked at meanwhile, it is nobody's, or a third one's.
@pytest.mark.parametrize("between_s", [0.0, 0.5])
# Cyrus counts UIDVALIDITY in seconds: a session goes on with another one of the same second, without a word.
@pytest.mark.parametrize("is_same_second", [False, True])
async def test_two_that_swap_their_names_while_mail_comes_tell_each_mail_once(
    cyrus: Cyrus, own_nats: NatsServer, mailbus: Maker, prefix: str, between_s: float, is_same_second: bool
) -> None:
    second = int(time.time())
    await until(lambda: int(time.time()) > second)
    await make(cyrus, prefix, "One")
    if not is_same_second:
        await until(lambda: int(time.time()) > second + 1)
    await make(cyrus, prefix, "Two")
    mine = imap_account(cyrus, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    one.start()
    await one.started()
    await heard(one, "INBOX", "One", "Two")
    over = threading.Event()

    def swap() -> None:
        with cyrus.client(prefix) as client:
            for old, new in (("One", "Third"), ("Two", "One"), ("Third", "Two")):
                client.rename(old, new)
                time.sleep(between_s)

    async with reading(own_nats.url, prefix) as reader, asyncio.TaskGroup() as group:
        pouring = [
            group.create_task(asyncio.to_thread(pour, cyrus, prefix, name, first, pause_s, over))
            # One has more than the other: what it had by then is above what the other one told last.
            for name, first, pause_s in (("One", 1000, 0.02), ("Two", 2000, 0.08))
        ]
        try:
            await counted(reader, received=10)
            await asyncio.to_thread(swap)
            # All three began, and two begin again.
            await counted(reader, reset=5)
        finally:
            over.set()
        await asyncio.wait(pouring)
        await all_told(reader, cyrus, prefix)
        await settled(reader, gone="Third")
        await all_told(reader, cyrus, prefix)
    assert await one.stop() == 0


async def all_told(reader: BusReader, server: ImapServer, user: str) -> None:
    """Until each mail of both is announced, as often as it is there."""

    def subjects() -> Counter[str]:
        with server.client(user) as client:
            found = Counter[str]()
            for name in ("One", "Two"):
                client.select(name, readonly=True)
                lines = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
                found.update(line[1].decode().strip().removeprefix("Subject: ") for line in lines if len(line) == 2)
            return found

    there = await asyncio.to_thread(subjects)
    deadline = asyncio.get_running_loop().time() + 60
    while (told := Counter(event.body["subject"] for event in await reader.received())) != there:
        doubled = told - there
        assert not doubled
        assert asyncio.get_running_loop().time() < deadline, there - told
        await asyncio.sleep(0.2)


def pour(server: ImapServer, user: str, name: str, first: int, pause_s: float, over: threading.Event) -> None:
    """Mail for a name, as fast as the server takes it, whoever has the name."""
    with server.client(user) as client:
        for number in itertools.count(first):
            if over.wait(pause_s):
                return
            with suppress(AssertionError):  # refused while nobody has the name
                client.append(name, "", "", mail(number))
