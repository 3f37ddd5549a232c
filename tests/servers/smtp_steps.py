"""A scripted relay that does one thing at one step of the protocol: refuses, defers, stalls, drops, closes.

SMTP with DATA, SMTP with BDAT, or LMTP. It keeps what it took for whom, and whom it refused for good: what a sender
says of a request is held against that.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import pytest

from tests.servers.scripted import Scripted, ScriptedConnection, serving

USER: Final = "u"
PASSWORD: Final = "right-Pa55"
LOGIN: Final = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
OFFERS: Final = ("PIPELINING", "CHUNKING", "8BITMIME", "ENHANCEDSTATUSCODES")
LINGER_S: Final = 2.0
_PATH: Final = re.compile(r"<(.*)>")


class Step(StrEnum):
    """Where it does it, in the order of the protocol."""

    CONNECT = "connect"
    BANNER = "banner"
    HELLO = "hello"
    STARTTLS = "starttls"
    HELLO_AGAIN = "hello_again"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    GO = "go"  # DATA, or the first chunk
    BODY = "body"  # in the midst of the message
    END = "end"  # the dot, or the last chunk
    RSET = "rset"
    QUIT = "quit"


class Act(StrEnum):
    """What it does."""

    REFUSE = "refuse"  # 5yz
    DEFER = "defer"  # 4yz
    STALL = "stall"  # says nothing any more
    DROP = "drop"
    CLOSE = "close"  # 421, and ends the connection
    TAKE_AND_STALL = "take_and_stall"  # END alone: the message is taken, and nothing is said of it
    TAKE_AND_DROP = "take_and_drop"


REFUSALS: Final = {Step.BANNER: "554 5.3.2", Step.STARTTLS: "554 5.7.0", Step.AUTH: "535 5.7.8"}
DEFERRALS: Final = {Step.STARTTLS: "454 4.7.0", Step.AUTH: "454 4.7.0"}


@dataclass
class StepConnection(ScriptedConnection):
    """One client: its envelope so far."""

    secure: bool = False
    began: bool = False
    mail: str = ""  # the refusal of MAIL, for those who come after it
    rcpt: list[str] = field(default_factory=list)
    content: bytes = b""

    async def read(self, count: int) -> bytes:
        """So many bytes."""
        return await self.reader.readexactly(count)

    async def read_line(self) -> bytes:
        """A line as it is."""
        return await self.reader.readuntil(b"\r\n")

    def reset(self) -> None:
        """No envelope."""
        self.mail, self.rcpt, self.content = "", [], b""


@dataclass(kw_only=True)
class StepRelay(Scripted[StepConnection]):
    """`do` at `at`, so often. `who`: the recipient whom RCPT, or END by LMTP, is about; "": any."""

    at: Step | None = None
    do: Act = Act.DROP
    times: int = 1
    who: str = ""
    lmtp: bool = False
    offers: Sequence[str] = OFFERS
    # It offers BDAT and does not know it.
    boasts: bool = False
    starttls: ssl.SSLContext | None = None
    login: bool = False
    # Replies to RCPT by recipient, and after the end; the last one stays.
    rcpt: dict[str, list[str]] = field(default_factory=dict)
    end: dict[str, list[str]] = field(default_factory=dict)
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> StepConnection:
        """A client that connected."""
        return StepConnection(reader, writer)

    def copies(self, who: str) -> list[bytes]:
        """The messages that it took for a recipient."""
        return [content for recipient, content in self.taken if recipient == who]

    async def greet(self, connection: StepConnection) -> None:
        """The banner."""
        await self.fault(connection, Step.CONNECT)
        said = await self.fault(connection, Step.BANNER)
        await connection.send(f"{said or '220 x'}\r\n")
        if said is not None:
            self.drop(connection)

    def drop(self, connection: StepConnection) -> None:
        """What was said is sent first."""
        self.hang_up(connection)
        raise ConnectionAbortedError

    async def fault(self, connection: StepConnection, step: Step, who: str = "") -> str | None:
        """The refusal to give here, if this is where something goes wrong; does not come back where nothing is said."""
        if step is not self.at or not self.times or (self.who and who and who != self.who):
            return None
        self.times -= 1
        match self.do:
            case Act.REFUSE:
                return f"{REFUSALS.get(step, '550 5.5.0')} no"
            case Act.DEFER:
                return f"{DEFERRALS.get(step, '451 4.3.0')} later"
            case Act.STALL | Act.TAKE_AND_STALL:
                await asyncio.Event().wait()
            case Act.CLOSE:
                await connection.send("421 4.3.2 closing\r\n")
                # Who closes with bytes unread takes back what he said last.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while await connection.reader.read(65536):
                            pass
                self.drop(connection)
            case Act.DROP | Act.TAKE_AND_DROP:
                connection.cut()
        raise ConnectionAbortedError

    async def answer(self, connection: StepConnection, line: str) -> bool:
        """A command."""
        verb, _, rest = line.partition(" ")
        answers: dict[str, Callable[[StepConnection, str], Awaitable[str]]] = {
            "EHLO": self._hello, "LHLO": self._hello, "HELO": self._hello, "STARTTLS": self._starttls,
            "AUTH": self._auth, "MAIL": self._mail, "RCPT": self._rcpt, "DATA": self._data, "BDAT": self._bdat,
            "RSET": self._rset, "QUIT": self._quit,
        }  # fmt: skip
        known = answers.get(verb.upper())
        said = await known(connection, rest) if known is not None else "500 5.5.1 unknown"
        if said:
            await connection.send(f"{said}\r\n")
        if verb.upper() == "STARTTLS" and said.startswith("220"):
            assert self.starttls is not None
            await connection.writer.start_tls(self.starttls)
            connection.secure = True
        return verb.upper() != "QUIT"

    async def _hello(self, connection: StepConnection, rest: str) -> str:
        said = await self.fault(connection, Step.HELLO_AGAIN if connection.secure else Step.HELLO)
        if said is not None:
            return said
        if self.commands[-1].startswith("LHLO") != self.lmtp:
            return "500 5.5.1 not here"
        connection.reset()
        offers = list(self.offers)
        offers += ["STARTTLS"] if self.starttls is not None and not connection.secure else []
        offers += ["AUTH PLAIN"] if self.login else []
        return "\r\n".join([*(f"250-{name}" for name in ("x", *offers)), "250 HELP"])

    async def _starttls(self, connection: StepConnection, rest: str) -> str:
        return await self.fault(connection, Step.STARTTLS) or "220 go"

    async def _auth(self, connection: StepConnection, rest: str) -> str:
        said = await self.fault(connection, Step.AUTH)
        return said or ("235 2.7.0 in" if rest == f"PLAIN {LOGIN}" else "535 5.7.8 wrong")

    async def _mail(self, connection: StepConnection, rest: str) -> str:
        connection.mail = await self.fault(connection, Step.MAIL) or ""
        return connection.mail or "250 2.1.0 OK"

    async def _rcpt(self, connection: StepConnection, rest: str) -> str:
        found = _PATH.search(rest)
        assert found is not None
        who = found[1]
        replies = self.rcpt.get(who)
        said = connection.mail or await self.fault(connection, Step.RCPT, who)
        if said is None and replies:
            said = replies.pop(0) if len(replies) > 1 else replies[0]
        if said is not None and not said.startswith("2"):
            self._refuse([who], said)
            return said
        connection.rcpt.append(who)
        return said or "250 2.1.5 OK"

    def _refuse(self, whose: Sequence[str], said: str) -> None:
        if said.startswith("5"):
            self.refused.update(whose)

    async def _data(self, connection: StepConnection, rest: str) -> str:
        if not connection.rcpt:
            return "503 5.5.1 nobody"
        said = await self.fault(connection, Step.GO)
        if said is not None:
            self._refuse(connection.rcpt, said)
            return said
        await connection.send("354 go\r\n")
        lines = [await connection.read_line()]
        said = await self.fault(connection, Step.BODY)
        if said is not None:
            self._refuse(connection.rcpt, said)
            await connection.send(f"{said}\r\n")
        while lines[-1] != b".\r\n":
            lines.append(await connection.read_line())
        if said is not None:
            connection.reset()
            return ""
        connection.content = b"".join(line.removeprefix(b".") for line in lines[:-1])
        return await self._end(connection)

    async def _bdat(self, connection: StepConnection, rest: str) -> str:
        if self.boasts or "CHUNKING" not in self.offers:
            return "502 5.5.1 unknown"
        size, _, last = rest.partition(" ")
        if not connection.rcpt:
            await connection.read(int(size))
            return "503 5.5.1 no"
        if last != "LAST":
            connection.content = await connection.read(int(size))
            said = await self.fault(connection, Step.GO)
            if said is not None:
                self._refuse(connection.rcpt, said)
                connection.reset()
            return said or f"250 2.0.0 {size}"
        half = int(size) // 2
        connection.content += await connection.read(half)
        said = await self.fault(connection, Step.BODY)
        if said is not None:
            self._refuse(connection.rcpt, said)
            await connection.send(f"{said}\r\n")
        connection.content += await connection.read(int(size) - half)
        if said is not None:
            connection.reset()
            return ""
        return await self._end(connection)

    async def _end(self, connection: StepConnection) -> str:
        said = []
        for whose in [[who] for who in connection.rcpt] if self.lmtp else [connection.rcpt]:
            key = whose[0] if self.lmtp else ""
            took = self.do in (Act.TAKE_AND_STALL, Act.TAKE_AND_DROP) and self.at is Step.END
            if took and self.times and (not self.who or key in ("", self.who)):
                self.taken += [(who, connection.content) for who in whose]
            if said and self.at is Step.END and self.times:
                # By LMTP those before are told, as a server does that delivers to one after the other.
                await connection.send("".join(f"{one}\r\n" for one in said))
                said = []
            replies = self.end.get(key)
            reply = await self.fault(connection, Step.END, key)
            if reply is None and replies:
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
            if reply is None or reply.startswith("2"):
                self.taken += [(who, connection.content) for who in whose]
            else:
                self._refuse(whose, reply)
            said.append(reply or "250 2.0.0 taken")
        connection.reset()
        return "\r\n".join(said)

    async def _rset(self, connection: StepConnection, rest: str) -> str:
        said = await self.fault(connection, Step.RSET)
        if said is None:
            connection.reset()
        return said or "250 2.0.0 OK"

    async def _quit(self, connection: StepConnection, rest: str) -> str:
        return await self.fault(connection, Step.QUIT) or "221 2.0.0 bye"


StepRelayMaker = Callable[..., Awaitable[StepRelay]]


@pytest.fixture
async def step_relay() -> AsyncIterator[StepRelayMaker]:
    """A maker of such relays, which end with the test."""
    async with AsyncExitStack() as stack:

        async def make(**arguments: Any) -> StepRelay:
            return await stack.enter_async_context(serving(StepRelay(**arguments)))

        yield make
