"""The test parts do what they say: else the tests that stand on them show nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats
import pytest

from service.observe.steps import STOP_EXIT_CODE, step
from tests.servers.forked import Forked, words
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way

MakeProxy = Callable[[str, int], Awaitable[FaultProxy]]


def test_a_forked_process_has_words_an_environment_and_an_end_of_its_own(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    assert Forked(words, "--version", env=os.environ, files=(None, out, err)).wait(20) == 0
    assert (out.read_text().split()[0], err.read_text()) == ("mailbus", "")
    assert Forked(words, "nonsense", env=os.environ, files=(None, out, err)).wait(20) == 2
    assert "nonsense" in err.read_text()
    assert Forked(step, "any", env=os.environ | {"MAILBUS_STOP_AT": "any"}).wait(20) == STOP_EXIT_CODE
    assert Forked(step, "any", env=os.environ).wait(20) == 0
    waits = Forked(signal.pause, env=os.environ)
    assert waits.poll() is None
    waits.kill()
    assert waits.wait(20) == -signal.SIGKILL


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                writer.write(chunk)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_nats_keeps_port_and_store_over_kill(own_nats: NatsServer) -> None:
    nc = await nats.connect(own_nats.url)
    await nc.jetstream().add_stream(name="S", subjects=["s"])
    await nc.jetstream().publish("s", b"x")
    await nc.close()
    port = own_nats.port
    await own_nats.restart()
    assert own_nats.port == port
    nc = await nats.connect(own_nats.url)
    assert (await nc.jetstream().stream_info("S")).state.messages == 1
    await nc.close()


async def test_proxy_passes_counts_and_records(fault_proxy: MakeProxy, echo: int) -> None:
    proxy = await fault_proxy("127.0.0.1", echo)
    proxy.recording = True
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    async with asyncio.timeout(5):
        assert await reader.readexactly(5) == b"hello"
        assert (proxy.connections, proxy.open_now) == (1, 1)
        assert bytes(proxy.seen[Way.TO_SERVER]) == bytes(proxy.seen[Way.TO_CLIENT]) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()


async def test_proxy_cuts_after_the_named_byte(fault_proxy: MakeProxy, echo: int) -> None:
    proxy = await fault_proxy("127.0.0.1", echo)
    proxy.cut_after(3)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    async with asyncio.timeout(5):
        assert await reader.read(100) == b"hel"
        assert await reader.read() == b""
    writer.close()


async def test_proxy_swallows_then_resets_then_refuses(fault_proxy: MakeProxy, echo: int) -> None:
    proxy = await fault_proxy("127.0.0.1", echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.swallow(Way.TO_CLIENT)
    writer.write(b"gone")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(100)
    proxy.heal()
    writer.write(b"here")
    async with asyncio.timeout(5):
        assert await reader.readexactly(4) == b"here"
        proxy.stall()
        proxy.cut()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        await proxy.refuse()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.heal()
        await proxy.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"back")
        assert await reader.readexactly(4) == b"back"
    writer.close()
