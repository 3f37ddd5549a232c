"""Several clients at once do what they like to a mailbox; who reads nothing but events ends with the server's state.

What Dovecot's imaptest does to a server, which no package has: random STORE, EXPUNGE, APPEND, COPY and MOVE, by a seed.
"""

import asyncio
import imaplib
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.ingest.harness import following
from tests.ingest.view import mail, quick, seen, there_now, view, watching
from tests.servers.bus import bus_at
from tests.servers.imap_server import PASSWORD, ImapServer
from tests.servers.mailbus import reading
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy

CLIENTS = 3
COMMANDS = 80
PAUSE_S = 0.05
KNOWN = 30
CUTS = 6
FLAGS = (r"\Seen", r"\Flagged", r"\Answered", r"\Deleted", "work", "$Forwarded")
# What is said where another client was quicker.
TOO_LATE = (b"EXPUNGEISSUED", b"no longer", b"No matching", b"SERVERBUG")


class Disturber:
    """One client, its own chance, its own connection."""

    def __init__(self, server: ImapServer, user: str, chance: random.Random, numbers: "itertools.count[int]") -> None:
        self.server = server
        self.user = user
        self.chance = chance
        self.numbers = numbers
        self.client = self._connected()

    def _connected(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4(self.server.host, self.server.imap, timeout=30)
        client.login(self.user, PASSWORD)
        self._done(client.select("Box"))
        return client

    def run(self) -> None:
        """COMMANDS of them, one after the other."""
        actions = [self.append, self.flag, self.flag, self.flag, self.expunge, self.copy, self.move, self.bring_back]
        for _ in range(COMMANDS):
            try:
                self.chance.choice(actions)()
            except imaplib.IMAP4.abort:
                # Dovecot drops one at times, over a Maildir that others change.
                self.client = self._connected()
            # Else all is over before mailbus has heard of the first.
            time.sleep(self.chance.uniform(0, PAUSE_S))
        self.client.logout()

    def append(self) -> None:
        flags = " ".join(self.chance.sample(FLAGS, self.chance.randint(0, 2)))
        self._done(self.client.append("Box", f"({flags})", "", mail(next(self.numbers))))

    def flag(self) -> None:
        flags = " ".join(self.chance.sample(FLAGS, self.chance.randint(1, 3)))
        self._on_some("STORE", self.chance.choice(["+FLAGS", "-FLAGS", "FLAGS.SILENT"]), f"({flags})")

    def copy(self) -> None:
        self._on_some("COPY", "Box")

    def move(self) -> None:
        self._on_some("MOVE", "Other")

    def expunge(self) -> None:
        self._done(self.client.expunge())

    def bring_back(self) -> None:
        self._done(self.client.select("Other"))
        self._on_some("MOVE", "Box")
        self._done(self.client.select("Box"))

    def _on_some(self, name: str, *arguments: str) -> None:
        self._done(self.client.noop())
        uids = self._done(self.client.uid("SEARCH", "ALL"))[0].split()
        if uids:
            some = self.chance.sample(uids, min(len(uids), self.chance.randint(1, 5)))
            self._done(self.client.uid(name, b",".join(some).decode(), *arguments))

    def _done(self, answer: tuple[str, list[Any]]) -> list[Any]:
        status, said = answer
        assert status == "OK" or any(word in said[0] for word in TOO_LATE), said
        return said


@pytest.mark.fault("A11")
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot", "old", "cyrus"])
async def test_what_several_clients_do_at_once_is_what_the_events_say(
    server_that: Callable[[str], ImapServer],
    nats_server: NatsServer,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    habit: str,
) -> None:
    server = server_that(habit)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, numbers = random.Random(seed), itertools.count(1)
    with server.client(prefix) as client:
        client.create("Box")
        client.create("Other")
    await server.append(prefix, [mail(next(numbers)) for _ in range(KNOWN)], "Box")
    proxy = await fault_proxy(server.host, server.imap)
    box = quick(server, prefix, mailbox="Box")
    box.port = proxy.port
    disturbers = [Disturber(server, prefix, random.Random(chance.random()), numbers) for _ in range(CLIENTS)]
    async with bus_at(nats_server.url, prefix) as bus, reading(nats_server.url, prefix) as reader:
        async with following(bus, box):
            await reader.wait_received(KNOWN)
            async with asyncio.TaskGroup() as group:
                cutting = group.create_task(_cut(proxy, chance))
                async with asyncio.TaskGroup() as working:
                    for one in disturbers:
                        working.create_task(asyncio.to_thread(one.run))
                cutting.cancel()
            proxy.heal()
            there = await asyncio.to_thread(there_now, server, prefix, "Box")
            found = await seen(reader, there)
        # A start that compares all finds nothing that was not told.
        box = quick(server, prefix, mailbox="Box")
        async with following(bus, box):
            await watching(box)
        assert (await view(reader)).told == found.told
    assert {kind for kind, _ in found.told} == {"received", "changed", "removed"}


async def _cut(proxy: FaultProxy, chance: random.Random) -> None:
    """mailbus's connection ends now and then, in the middle of something."""
    with suppress(asyncio.CancelledError):
        for _ in range(CUTS):
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            proxy.cut_after(chance.randint(0, 2000))
