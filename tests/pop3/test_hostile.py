"""A server that says anything at any time: the connection ends with a verdict, and nothing is left of it."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clock import SystemClock
from service.errors import MailbusError, PeerError
from service.ingest.prints import print_of
from service.mime import received_at
from service.observe import metrics
from service.pop3 import Session, listed
from tests.pop3.harness import options, session
from tests.servers.pop3_stub import Mail, Pop3Stub

MESSAGE = b"+OK\r\nReceived: from a; Fri, 1 Jan 2021 10:00:00 +0000\r\nSubject: x\r\n\r\nbody\r\n.\r\n"
USUAL = {
    "CAPA": b"+OK\r\nTOP\r\nUIDL\r\nUSER\r\nPIPELINING\r\nLOGIN-DELAY 1\r\n.\r\n",
    "STAT": b"+OK 2 20\r\n",
    "LIST": b"+OK\r\n1 10\r\n2 10\r\n.\r\n",
    "UIDL": b"+OK\r\n1 a\r\n2 b\r\n.\r\n",
    "RETR": MESSAGE,
    "TOP": MESSAGE,
}
# What means something somewhere, more often than chance would have it.
PIECES = st.sampled_from(
    [
        *(b"+OK", b"-ERR", b"\r\n", b".\r\n", b".", b"\r", b"\n", b" ", b"1 a", b"2 99999999999", b"+ ", b"[IN-USE] "),
        *(b"Received: x; Mon, 99 Foo 99999 99:99:99 +9999", b"[\xff]", b"\x00", b"LOGIN-DELAY 99999999", b"SASL PLAIN"),
    ]
)
HOSTILE = st.lists(PIECES | st.binary(max_size=5), max_size=12).map(b"".join)
# To each command, in their order, what a server says: None is what one would expect.
ANSWERS = st.lists(st.none() | HOSTILE | HOSTILE.map(lambda data: b"+OK " + data + b"\r\n.\r\n"), max_size=14)


class Says(asyncio.Protocol):
    """A server that answers line by line: with what it is given, or as one would expect."""

    def __init__(self, answers: Iterator[bytes | None]) -> None:
        self._answers = answers
        self._transport: asyncio.WriteTransport | None = None
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(next(self._answers, None) or b"+OK ready\r\n")

    def data_received(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            said = next(self._answers, None)
            word = line.decode().partition(" ")[0]
            assert self._transport is not None
            self._transport.write(USUAL.get(word, b"+OK\r\n") if said is None else said)
            if word == "QUIT":
                self._transport.close()


async def attempt(answers: Sequence[bytes | None]) -> list[dict[str, Any]]:
    """All that is ever said in a session, as far as it comes; gives what nobody handled."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    left = iter(answers)
    server = await loop.create_server(lambda: Says(left), "127.0.0.1", 0)
    opened = None
    try:
        opened = await Session.open(options(server.sockets[0].getsockname()[1], reply_s=0.02), clock=SystemClock())
        listing = await listed(opened)
        bodies: list[bytes] = []
        numbers = list(listing.numbers)[:3]
        for whole in (True, False):
            await opened.read(numbers, lambda _number, body: bodies.append(body), whole=whole)
        for one in bodies:
            received_at(one)
            print_of(one, whole=True)
        await opened.is_alive()
        await opened.delete(numbers)
        await opened.quit()
    except MailbusError:
        pass
    finally:
        if opened is not None:
            opened.abort()
        server.close()
    return unhandled


@pytest.mark.fault("B06", "G07")
@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_any_bytes_at_any_time_end_in_a_verdict(answers: list[bytes | None]) -> None:
    bugs = metrics.BUGS._value.get()
    assert asyncio.run(attempt(answers)) == []
    assert metrics.BUGS._value.get() == bugs


@pytest.mark.fault("B06")
async def test_an_answer_that_breaks_its_reader_ends_the_connection_at_once(pop3_stub: Pop3Stub) -> None:
    pop3_stub.mails = [Mail("one", b"Subject: x\r\n\r\n")]
    bugs = metrics.BUGS._value.get()

    def breaks(_rows: list[tuple[int, int]]) -> None:
        raise IndexError("out of range")

    async with session(pop3_stub.port) as opened:
        with pytest.raises(PeerError, match="IndexError"):
            await opened.sizes(breaks)
        with pytest.raises(MailbusError):
            await opened.count()
    assert metrics.BUGS._value.get() == bugs + 1
