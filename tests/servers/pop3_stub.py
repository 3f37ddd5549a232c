"""A scripted POP3 server for what real ones will not do on command: it behaves until a hook makes it misbehave."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.servers.imap_server import PASSWORD
from tests.servers.scripted import Scripted, ScriptedConnection, serving

CAPABILITIES = "TOP UIDL RESP-CODES PIPELINING AUTH-RESP-CODE USER SASL(PLAIN)"


@dataclass
class Mail:
    """One message of the maildrop."""

    uidl: str
    body: bytes


@dataclass
class Pop3Connection(ScriptedConnection):
    """One client, as the hooks see it. `drop`: the messages as they were at its login."""

    user: str = ""
    drop: list[Mail] | None = None
    marked: set[int] = field(default_factory=set)


# A hook answers a command itself and gives True, or gives False and lets the server behave.
Hook = Callable[[Pop3Connection, str], Awaitable[bool]]


@dataclass
class Pop3Stub(Scripted[Pop3Connection]):
    """One maildrop. `hooks` by the command's name; `GREETING` before the first line."""

    mails: list[Mail] = field(default_factory=list)
    capabilities: str = CAPABILITIES
    greeting: str = field(default="+OK ready <1.2@stub>\r\n", kw_only=True)
    tls: ssl.SSLContext | None = None
    hooks: dict[str, Hook] = field(default_factory=dict)

    @property
    def uidls(self) -> list[str]:
        """Of what is in the maildrop."""
        return [mail.uidl for mail in self.mails]

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Pop3Connection:
        """A client that connected."""
        return Pop3Connection(reader, writer)

    async def answer(self, connection: Pop3Connection, line: str) -> bool:
        """By a hook, or as a server would."""
        name, _, arguments = line.partition(" ")
        hook = self.hooks.get(name)
        if hook is not None and await hook(connection, arguments):
            return True
        await self.behave(connection, name, arguments)
        return name != "QUIT"

    async def behave(self, connection: Pop3Connection, name: str, arguments: str) -> None:
        """Answer as a server would."""
        if name == "CAPA":
            capabilities = [word.replace("(", " ").rstrip(")") for word in self.capabilities.split()]
            await connection.send("+OK\r\n" + "".join(f"{one}\r\n" for one in capabilities) + ".\r\n")
        elif name == "STLS" and self.tls is not None:
            await connection.send("+OK begin\r\n")
            await connection.writer.start_tls(self.tls)
        elif name == "USER":
            connection.user = arguments
            await connection.send("+OK\r\n")
        elif name == "PASS":
            await self.log_in(connection, ok=arguments == PASSWORD)
        elif name == "AUTH":
            mechanism, _, initial = arguments.partition(" ")
            if not initial:
                await connection.send("+ \r\n")
                initial = await connection.line()
            said = base64.b64decode(initial).decode()
            await self.log_in(connection, ok=mechanism == "PLAIN" and said.endswith(f"\0{PASSWORD}"))
        elif name == "QUIT":
            if connection.drop is not None:
                gone = [id(mail) for number, mail in enumerate(connection.drop, 1) if number in connection.marked]
                self.mails = [mail for mail in self.mails if id(mail) not in gone]
            await connection.send("+OK bye\r\n")
        elif connection.drop is None:
            await connection.send("-ERR log in first\r\n")
        else:
            await self._of_drop(connection, connection.drop, name, arguments)

    async def log_in(self, connection: Pop3Connection, *, ok: bool) -> None:
        """RFC 1939 4: the maildrop is locked, and as it is now for as long as the session lasts."""
        if not ok:
            await connection.send("-ERR [AUTH] wrong password\r\n")
        elif any(other.drop is not None for other in self.connections):
            await connection.send("-ERR [IN-USE] locked\r\n")
        else:
            connection.drop = list(self.mails)
            await connection.send("+OK\r\n")

    async def _of_drop(self, connection: Pop3Connection, drop: list[Mail], name: str, arguments: str) -> None:
        if name in {"LIST", "UIDL"}:
            said = [len(mail.body) if name == "LIST" else mail.uidl for mail in drop]
            rows = [f"{n} {what}\r\n" for n, what in enumerate(said, 1) if n not in connection.marked]
            await connection.send("".join(["+OK\r\n", *rows, ".\r\n"]))
        elif name == "STAT":
            there = [len(mail.body) for n, mail in enumerate(drop, 1) if n not in connection.marked]
            await connection.send(f"+OK {len(there)} {sum(there)}\r\n")
        elif name == "NOOP":
            await connection.send("+OK\r\n")
        elif name in {"RETR", "TOP", "DELE"}:
            number = int(arguments.partition(" ")[0])
            if not 0 < number <= len(drop) or number in connection.marked:
                await connection.send("-ERR no such message\r\n")
            elif name == "DELE":
                connection.marked.add(number)
                await connection.send("+OK\r\n")
            else:
                await connection.send(retrieved(drop[number - 1].body, whole=name == "RETR"))
        else:
            await connection.send("-ERR unknown command\r\n")


def retrieved(body: bytes, *, whole: bool) -> bytes:
    """The answer to RETR, or to TOP with no lines of the body."""
    shown = body if whole else body.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    shown = shown if shown.endswith(b"\r\n") else shown + b"\r\n"
    shown = shown.replace(b"\r\n.", b"\r\n..")
    return b"+OK\r\n" + (b"." + shown if shown.startswith(b".") else shown) + b".\r\n"


@pytest.fixture
async def pop3_stub() -> AsyncIterator[Pop3Stub]:
    """A scripted server with an empty maildrop."""
    async with serving(Pop3Stub()) as stub:
        yield stub
