"""How long a connection waits for each reply: one timer serves all of them."""

import asyncio

import pytest

from service.errors import Transient
from service.smtp.protocol import Protocol


class Nowhere(asyncio.Transport):
    """Takes whatever is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def connected() -> Protocol:
    protocol = Protocol(lambda _: None)
    protocol.connection_made(Nowhere())
    protocol.take_over()
    return protocol


async def test_a_reply_that_comes_in_time_is_given_however_short_the_wait_before_it_was() -> None:
    protocol, loop = connected(), asyncio.get_running_loop()
    protocol.send(b"NOOP\r\n", 1)
    loop.call_soon(protocol.data_received, b"250 first\r\n")
    assert (await protocol.reply(0.05)).text == "first"
    protocol.send(b"NOOP\r\n", 1)
    loop.call_later(0.1, protocol.data_received, b"250 second\r\n")
    assert (await protocol.reply(60)).text == "second"
    protocol.connection_lost(None)


async def test_a_short_wait_after_a_long_one_ends_in_its_own_time() -> None:
    protocol, loop = connected(), asyncio.get_running_loop()
    protocol.send(b"NOOP\r\n", 2)
    loop.call_soon(protocol.data_received, b"250 first\r\n")
    assert (await protocol.reply(60)).text == "first"
    with pytest.raises(Transient, match="no reply"):
        await protocol.reply(0.05)
    protocol.connection_lost(None)


async def test_whoever_waits_hears_that_the_connection_is_lost() -> None:
    protocol, loop = connected(), asyncio.get_running_loop()
    protocol.send(b"NOOP\r\n", 1)
    loop.call_soon(protocol.connection_lost, None)
    with pytest.raises(Transient, match="closed"):
        await protocol.reply(60)
