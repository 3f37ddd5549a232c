"""A consumer that reads nothing but events, and another client that changes the mailbox behind mailbus's back."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.contract import keywords_of, place_of
from tests.ingest.harness import Box
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, Event, until


def mail(number: int) -> bytes:
    """No two of these have the same size."""
    return b"Subject: mail %d\r\n\r\n%b\r\n" % (number, b"x" * number)


@dataclass
class View:
    """A mailbox as one sees it who reads nothing but events: UID → keywords."""

    messages: dict[int, frozenset[str]] = field(default_factory=dict)
    told: list[tuple[str, int]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def read(self, events: list[Event]) -> "View":
        for event in events:
            self.ids.append(event.headers["ce-id"])
            if event.kind == "reset":
                self.messages = {}
                continue
            place = place_of(event.body["id"])
            assert place is not None
            self.told.append((event.kind, place.uid))
            match event.kind:
                case "received":
                    assert place.uid not in self.messages
                    self.messages[place.uid] = frozenset(event.body["keywords"])
                case "changed":
                    assert self.messages[place.uid] != frozenset(event.body["keywords"])
                    self.messages[place.uid] = frozenset(event.body["keywords"])
                case "removed":
                    del self.messages[place.uid]
        assert len(set(self.ids)) == len(self.ids)
        return self


async def view(reader: BusReader) -> View:
    return View().read(await reader.events())


async def seen(reader: BusReader, expected: dict[int, set[str]], *, limit_s: float = 15) -> View:
    """Until the events make this mailbox."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while True:
        found = await view(reader)
        if found.messages == expected:
            return found
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"{found.messages} is not {expected}: {found.told}")
        await asyncio.sleep(0.02)


def there_now(server: ImapServer, user: str, mailbox: str) -> dict[int, set[str]]:
    """What another client is told: UID → keywords. Blocks."""
    found: dict[int, set[str]] = {}
    with server.client(user) as client:
        client.select(mailbox, readonly=True)
        if not client.uid("SEARCH", "ALL")[1][0]:
            return found
        for line in client.uid("FETCH", "1:*", "(UID FLAGS)")[1]:
            uid, flags = re.search(rb"UID (\d+)", line), re.search(rb"FLAGS \(([^)]*)\)", line)
            assert uid
            assert flags
            found[int(uid[1])] = set(keywords_of(frozenset(flags[1].decode().split())))
    return found


async def act(server: ImapServer, user: str, *commands: tuple[str, ...], mailbox: str = "INBOX") -> None:
    """What another client does: UID commands on a mailbox."""

    def run() -> None:
        with server.client(user) as client:
            client.select(mailbox)
            for command in commands:
                name, *arguments = command
                status, answer = client.expunge() if name == "EXPUNGE" else client.uid(name, *arguments)
                assert status == "OK", answer

    await asyncio.to_thread(run)


def quick(server: ImapServer, user: str, **more: Any) -> Box:
    return Box(server.imap, user, idle_s=0.5, poll_s=0.05, **more)


async def watching(box: Box) -> None:
    await until(lambda: box.status.state == "watching", what=f"{box.states}")
