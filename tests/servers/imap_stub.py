"""A scripted IMAP server for what real ones will not do on command: it behaves until a hook makes it misbehave."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.servers.scripted import Scripted, ScriptedConnection, serving

CAPABILITIES = "IMAP4rev1 IDLE LITERAL+ ESEARCH"


@dataclass
class Connection(ScriptedConnection):
    """One client, as the hooks see it."""

    idling: str = ""
    # Whether it has the mailbox open, and what it will be told of it once it idles.
    selected: bool = False
    unsaid: list[str] = field(default_factory=list)


# A hook answers a command itself and gives True, or gives False and lets the server behave.
Hook = Callable[[Connection, str, str], Awaitable[bool]]


@dataclass
class ImapStub(Scripted[Connection]):
    """One mailbox by UID. `hooks` by the command's name, `UID FETCH` and the like with both words."""

    messages: dict[int, bytes] = field(default_factory=dict)
    uidvalidity: int = 7
    # RFC 7162: 0 is a mailbox without. `flags` and `modseqs` by UID, where they are not the usual ones.
    highestmodseq: int = 0
    flags: dict[int, str] = field(default_factory=dict)
    modseqs: dict[int, int] = field(default_factory=dict)
    uidnext: int = 0
    capabilities: str = CAPABILITIES
    greeting: str = field(default="* OK ready\r\n", kw_only=True)
    hooks: dict[str, Hook] = field(default_factory=dict)

    async def deliver(self, uid: int, message: bytes) -> None:
        """A new message, and whoever has the mailbox open is told."""
        self.messages[uid] = message
        await self.tell(f"* {len(self.messages)} EXISTS")

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        """A client that connected."""
        return Connection(reader, writer)

    def hang_up(self, connection: Connection) -> None:
        """At once, whatever was said."""
        connection.cut()

    async def answer(self, connection: Connection, line: str) -> bool:
        """By a hook, or as a server would."""
        tag, _, rest = line.partition(" ")
        name, _, arguments = rest.partition(" ")
        if name == "UID":
            name, arguments = f"UID {arguments.partition(' ')[0]}", arguments.partition(" ")[2]
        hook = self.hooks.get(name)
        if hook is not None and await hook(connection, tag, arguments):
            return True
        await self._behave(connection, tag, name, arguments)
        return name != "LOGOUT"

    async def _behave(self, connection: Connection, tag: str, name: str, arguments: str) -> None:
        uids = sorted(self.messages)
        if name == "CAPABILITY":
            await connection.send(f"* CAPABILITY {self.capabilities}\r\n")
        elif name in {"EXAMINE", "SELECT"}:
            connection.selected, connection.unsaid = True, []
            uidnext = self.uidnext or (uids[-1] if uids else 0) + 1
            await connection.send(
                f"* {len(uids)} EXISTS\r\n* OK [UIDVALIDITY {self.uidvalidity}] v\r\n* OK [UIDNEXT {uidnext}] n\r\n"
            )
            if self.highestmodseq:
                await connection.send(f"* OK [HIGHESTMODSEQ {self.highestmodseq}] h\r\n")
        elif name == "LIST":
            await connection.send('* LIST (\\HasNoChildren) "/" INBOX\r\n')
        elif name == "UID FETCH":
            wanted, _, items = arguments.partition(" ")
            since = re.search(r"CHANGEDSINCE (\d+)", items)
            for uid in self.uids_of(wanted):
                if since and self.modseqs.get(uid, 1) <= int(since[1]):
                    continue
                flags_alone = "FLAGS" in items and "SIZE" not in items
                await connection.send(self.flags_of(uid) if flags_alone else self.fetch(uid, body="BODY" in items))
        elif name == "FETCH":
            for seq in [int(one) for one in re.findall(r"\d+", arguments.partition(" ")[0])]:
                if seq <= len(uids):
                    await connection.send(self.flags_of(uids[seq - 1]))
        elif name == "UID SEARCH":
            found = self.uids_of(arguments.rpartition("UID ")[2]) if "UID " in arguments else []
            if "RETURN" in arguments:
                shown = f" ALL {','.join(map(str, found))}" if found else ""
                await connection.send(f'* ESEARCH (TAG "{tag}") UID{shown}\r\n')
            else:
                await connection.send(f"* SEARCH {' '.join(map(str, found))}\r\n")
        elif name == "NOOP":
            await connection.send(f"* {len(uids)} EXISTS\r\n")
        elif name == "IDLE":
            connection.idling = tag
            await connection.send("+ idling\r\n" + "".join(connection.unsaid))
            connection.unsaid = []
            while (await connection.line()).upper() != "DONE":
                pass
            connection.idling = ""
        await connection.send(f"{tag} OK done\r\n")

    def uids_of(self, wanted: str) -> list[int]:
        """The UIDs of a set that are there; `*` as RFC 9051 has it."""
        uids = sorted(self.messages)
        found: set[int] = set()
        for part in wanted.split(",") if uids else []:
            ends = [uids[-1] if end == "*" else int(end) for end in re.split(":", part)]
            found |= {uid for uid in uids if min(ends) <= uid <= max(ends)}
        return sorted(found)

    async def tell(self, line: str) -> None:
        """Something unasked: at once to whoever idles, and as soon as they do to others that have the mailbox open."""
        for connection in self.connections:
            if connection.idling:
                await connection.send(f"{line}\r\n")
            elif connection.selected:
                connection.unsaid.append(f"{line}\r\n")

    def flags_of(self, uid: int) -> str:
        """One FETCH response about flags alone."""
        seq = sorted(self.messages).index(uid) + 1
        modseq = f" MODSEQ ({self.modseqs.get(uid, 1)})" if self.highestmodseq else ""
        flags = self.flags.get(uid, "\\Seen")
        return f"* {seq} FETCH (UID {uid} FLAGS ({flags}){modseq})\r\n"

    def fetch(self, uid: int, *, body: bool) -> bytes:
        """One FETCH response."""
        message = self.messages[uid]
        seq = sorted(self.messages).index(uid) + 1
        if body:
            return b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (seq, uid, len(message), message)
        date = b'"01-Nov-2026 10:00:00 +0000"'
        return b"* %d FETCH (UID %d FLAGS (%b) INTERNALDATE %b RFC822.SIZE %d)\r\n" % (
            seq,
            uid,
            self.flags.get(uid, "\\Seen").encode(),
            date,
            len(message),
        )


@pytest.fixture
async def imap_stub() -> AsyncIterator[ImapStub]:
    """A scripted server with an empty mailbox."""
    async with serving(ImapStub()) as stub:
        yield stub
