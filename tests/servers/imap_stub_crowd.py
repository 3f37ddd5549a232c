"""A scripted server with many mailboxes, as old or as new as its capabilities say: LIST-STATUS, SPECIAL-USE, NOTIFY.

Names are those of the wire. It says nothing unasked of a mailbox but to whoever idles in it, and to whoever asked by
NOTIFY (RFC 5465).
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.scripted import serving

OLD: Final = "IMAP4rev1 IDLE"
NOTIFYING: Final = "IMAP4rev1 IDLE ESEARCH LIST-EXTENDED LIST-STATUS SPECIAL-USE NOTIFY"


@dataclass
class Mailbox:
    """One of them. `attributes`: what LIST says beside its name."""

    uidvalidity: int
    messages: dict[int, bytes] = field(default_factory=dict)
    attributes: str = ""

    @property
    def uidnext(self) -> int:
        return max(self.messages, default=0) + 1

    @property
    def status(self) -> str:
        return f"MESSAGES {len(self.messages)} UIDNEXT {self.uidnext} UIDVALIDITY {self.uidvalidity} UNSEEN 0"


@dataclass
class Crowd(ImapStub):
    """One account."""

    capabilities: str = OLD
    boxes: dict[str, Mailbox] = field(default_factory=dict)
    selected: dict[int, str] = field(default_factory=dict)
    # Connections that asked to be told of all mailboxes.
    listening: list[Connection] = field(default_factory=list)
    # Of those, whom nothing is said unasked since they were told that it was too much (RFC 5465 5.8: as NOTIFY NONE).
    muted: list[Connection] = field(default_factory=list)
    # Connections at once, at the most so far.
    most: int = 0

    def make(self, name: str, attributes: str = "") -> Mailbox:
        """A new mailbox, its UIDVALIDITY as servers make them."""
        box = self.boxes[name] = Mailbox(1_800_000_000 + len(self.boxes), attributes=attributes)
        return box

    async def put(self, name: str, message: bytes, *, tell: bool = True) -> None:
        """A mail comes; `tell`: whoever asked hears of it."""
        box = self.boxes[name]
        box.messages[box.uidnext] = message
        for connection in self.connections:
            if connection.idling and connection not in self.muted and self.selected.get(id(connection)) == name:
                await connection.send(f"* {len(box.messages)} EXISTS\r\n")
        if tell:
            await self.news(f'* STATUS "{name}" ({box.status})')

    async def news(self, line: str) -> None:
        """Something of a mailbox that need not be selected, to whoever asked for it."""
        for connection in [one for one in self.listening if one in self.connections and one not in self.muted]:
            await connection.send(f"{line}\r\n")
            if "NOTIFICATIONOVERFLOW" in line:
                self.muted.append(connection)

    async def _behave(self, connection: Connection, tag: str, name: str, arguments: str) -> None:
        self.most = max(self.most, len(self.connections))
        here = self.selected.get(id(connection), "")
        self.messages = self.boxes[here].messages if here in self.boxes else {}
        if name == "LIST":
            for box, state in self.boxes.items():
                await connection.send(f'* LIST ({state.attributes}) "/" "{box}"\r\n')
                if "STATUS" in arguments and "Noselect" not in state.attributes:
                    await connection.send(f'* STATUS "{box}" ({state.status})\r\n')
        elif name in {"STATUS", "EXAMINE", "SELECT"}:
            found = re.match(r'"((?:[^"\\]|\\.)*)"', arguments)
            box = found[1] if found else arguments.split()[0]
            if box not in self.boxes:
                await connection.send(f"{tag} NO [NONEXISTENT] no such mailbox\r\n")
                return
            if name == "STATUS":
                await connection.send(f'* STATUS "{box}" ({self.boxes[box].status})\r\n')
            else:
                self.selected[id(connection)] = box
                self.messages, self.uidvalidity = self.boxes[box].messages, self.boxes[box].uidvalidity
                await super()._behave(connection, tag, name, arguments)
                return
        elif name == "NOTIFY":
            self.muted = [one for one in self.muted if one is not connection]
            if "personal" in arguments:
                self.listening.append(connection)
            for box, state in self.boxes.items():
                if box != here and "STATUS" in arguments:
                    await connection.send(f'* STATUS "{box}" ({state.status})\r\n')
        else:
            await super()._behave(connection, tag, name, arguments)
            return
        await connection.send(f"{tag} OK done\r\n")


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """An account with INBOX alone."""
    stub = Crowd()
    stub.make("INBOX")
    async with serving(stub):
        yield stub
