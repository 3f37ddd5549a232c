"""A relay in memory, in a loop whose time stands still: what test_pool_model.py drives, step by step.

The sessions and the protocol are the real ones; only the socket is not there.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from service.smtp.connect import Connection, _Client
from service.smtp.envelope import JOINED_BYTES
from service.smtp.protocol import Protocol
from tests.servers.smtp_steps import Act

_COMMAND: Final = re.compile(rb"(?P<verb>[A-Z]+)(?: (?P<rest>[^\r\n]*))?\r\n")
_NUMBER: Final = re.compile(rb"<(\d+)@")


class Loop(asyncio.SelectorEventLoop):
    """Its time passes by `pass_time` alone."""

    at = 1000.0
    _ready: Any

    def time(self) -> float:
        return self.at

    def tick(self) -> None:
        """What is due now, and nothing that follows from it."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """All that happens by itself."""
        self.tick()
        while self._ready:
            self.tick()

    def pass_time(self, seconds: float) -> None:
        self.at += seconds
        self.tick()


class LoopClock:
    """The same time, as components are told it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._loop.at, UTC)

    def monotonic(self) -> float:
        return self._loop.at

    def chance(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Transport(asyncio.Transport):
    def __init__(self, peer: "Peer") -> None:
        super().__init__()
        self._peer = peer
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._peer.inbox += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._peer.loop.call_soon(self._peer.protocol.connection_lost, None)

    abort = close


def message_of(number: int, *, large: bool) -> bytes:
    """A mail that says whose it is."""
    return b"Subject: %d\r\n\r\n%b.\r\n" % (number, b"x\r\n" * (JOINED_BYTES // 2 if large else 1))


class Peer:
    """The relay's end of one connection. Each answer says which message it is about."""

    def __init__(self, relay: "MemoryRelay") -> None:
        self.relay, self.loop = relay, relay.loop
        self.inbox = bytearray()
        self.rcpt: list[bytes] = []
        self.number = 0
        self.content = b""
        # Whose body may come.
        self.open = 0
        self.deaf = False
        client = _Client(hostname="x", port=1)
        self.protocol = Protocol(client._on_connection_lost)
        self._transport = _Transport(self)
        self.protocol.connection_made(self._transport)
        client.protocol, client.transport = self.protocol, self._transport
        client.esmtp_extensions = dict.fromkeys(relay.offers, "")
        self.connection = Connection(client, self.protocol)

    @property
    def closed(self) -> bool:
        """By whomever."""
        return self._transport.is_closing()

    def drop(self) -> None:
        """End it."""
        if not self.closed:
            self.protocol.eof_received()
            self._transport.close()

    @property
    def waits(self) -> bool:
        """Whether a command, or a message, is there whole and not answered."""
        return self._next() is not None and not self.closed and not self.deaf

    @property
    def is_at_end(self) -> bool:
        """Whether it is a message."""
        command = self._next()
        return command is not None and command[0] == b"END"

    def _next(self) -> tuple[bytes, bytes, bytes] | None:
        """Its verb, what follows, and a chunk, or the message after DATA."""
        if self.open and not self.relay.chunks:
            end = self.inbox.find(b"\r\n.\r\n")
            return None if end < 0 else (b"END", b"", bytes(self.inbox[: end + 5]))
        found = _COMMAND.match(self.inbox)
        if found is None:
            return None
        verb, rest = found["verb"], found["rest"] or b""
        size = int(rest.split()[0]) if verb == b"BDAT" else 0
        if len(self.inbox) < found.end() + size:
            return None
        if verb == b"BDAT" and rest.endswith(b"LAST"):
            verb = b"END"
        return verb, rest, bytes(self.inbox[found.end() : found.end() + size])

    def answer(self, do: Act | None) -> None:
        """The next command, or what has come of a message so far."""
        command = self._next()
        if self.closed or self.deaf:
            return
        if command is None:
            if self.inbox and do in (Act.REFUSE, Act.DEFER):
                # Of a body that has not ended; whoever is told drops the connection.
                self.say(552 if do is Act.REFUSE else 452)
                self.deaf = True
            return
        verb, rest, chunk = command
        head = 0 if verb == b"END" and not self.relay.chunks else self.inbox.index(b"\r\n") + 2
        del self.inbox[: head + len(chunk)]
        if do is Act.TAKE_AND_DROP and verb == b"END":
            self._take(chunk)
        if do in (Act.DROP, Act.TAKE_AND_DROP):
            self.drop()
            return
        if do is Act.CLOSE:
            self.say(421)
            self.drop()
            return
        self._answer(verb, rest, chunk, {Act.REFUSE: 550, Act.DEFER: 451}.get(do) if do is not None else None)

    def _answer(self, verb: bytes, rest: bytes, chunk: bytes, refusal: int | None) -> None:
        match verb:
            case b"RSET":
                self._reset()
                self.say(refusal or 250)
            case b"MAIL":
                found = _NUMBER.search(rest)
                assert found is not None
                self._reset()
                self.relay.told.discard(int(found[1]))
                self.number = int(found[1]) if refusal is None else 0
                self.say(refusal or 250, int(found[1]))
            case b"RCPT":
                found = _NUMBER.search(rest)
                assert found is not None
                if refusal is None and self.number:
                    assert int(found[1]) == self.number
                    self.rcpt.append(rest)
                self.say(refusal or (250 if self.number else 503), int(found[1]))
            case b"DATA" | b"BDAT":
                if refusal is None and self.rcpt:
                    self.open, self.content = self.number, chunk
                    self.relay.told.add(self.number)
                    self.say(250 if self.relay.chunks else 354)
                else:
                    self.say(refusal or 503)
            case b"END":
                if not self.open:
                    self.say(503)
                    return
                if refusal is None:
                    self._take(chunk)
                number = self.open
                self._reset()
                self.say(refusal or 250, number)
            case b"QUIT":
                self.say(221)
                self.drop()

    def _take(self, chunk: bytes) -> None:
        content = self.content + chunk
        if not self.relay.chunks:
            content = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        number = self.open
        whole = [message_of(number, large=large) for large in (False, True)]
        assert content in whole, (number, content[:60])
        self.relay.taken[number] += 1

    def _reset(self) -> None:
        self.rcpt, self.number, self.content, self.open = [], 0, b"", 0

    def say(self, code: int, number: int | None = None) -> None:
        """A reply, about the message of that number."""
        self.protocol.data_received(b"%d of %d\r\n" % (code, self.number if number is None else number))


class MemoryRelay:
    """Whoever connects waits for `connects`."""

    def __init__(self, loop: Loop, *, chunks: bool) -> None:
        self.loop = loop
        self.chunks = chunks
        self.offers = ("pipelining", "8bitmime", *(("chunking",) if chunks else ()))
        self.peers: list[Peer] = []
        self.taken: Counter[int] = Counter()
        # Whose message it waits for, as it said when its envelope came last.
        self.told: set[int] = set()
        self.connecting: list[asyncio.Future[None]] = []

    async def connect(self, _options: Any) -> Connection:
        """Instead of connect.connect."""
        answer: asyncio.Future[None] = self.loop.create_future()
        self.connecting.append(answer)
        try:
            await answer
        finally:
            self.connecting.remove(answer)
        peer = Peer(self)
        self.peers.append(peer)
        return peer.connection

    def greets(self, refusal: Callable[[], Exception] | None) -> None:
        """The first one that connects."""
        for answer in self.connecting:
            if not answer.done():
                if refusal is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(refusal())
                return

    @property
    def there(self) -> list[Peer]:
        """Its ends of connections that stand."""
        self.peers = [one for one in self.peers if not one.closed]
        return self.peers
