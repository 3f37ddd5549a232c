"""A TCP proxy that does on command what networks do: swallow, stall, cut, reset, delay, refuse.

Stands between mailbus and a real IMAP, NATS or SMTP server. Acts on bytes, knows no protocol.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pytest

CHUNK_BYTES: Final = 64 * 1024
CONNECT_LIMIT_S: Final = 10.0


class Way(StrEnum):
    """Which way bytes go."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


BOTH: Final = (Way.TO_SERVER, Way.TO_CLIENT)


class _CutError(Exception):
    """The connection was cut on command."""


@dataclass(eq=False, slots=True)
class _Connection:
    """One that is up: its task, and its ends; whether all that it carries vanishes."""

    task: asyncio.Task[None]
    client: asyncio.StreamReader
    writers: list[asyncio.StreamWriter]
    lost: bool = False


class FaultProxy:
    """Listens on 127.0.0.1:`port` and passes everything on to the target, until told otherwise.

    `connections` counts what was accepted; `open_now` what is up, `open_most` what clients ever held at once. With
    `recording`, `seen[way]` holds the bytes that were passed on. `watch(way, chunk)` is called before a chunk is passed
    on and gives what shall be passed on.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.port = 0
        self.connections = 0
        self.open_most = 0
        self.recording = False
        self.seen: dict[Way, bytearray] = {way: bytearray() for way in BOTH}
        self.passed: dict[Way, int] = dict.fromkeys(BOTH, 0)
        self.watch: Callable[[Way, bytes], bytes] | None = None
        self.delay_s: dict[Way, float] = dict.fromkeys(BOTH, 0.0)
        self._swallowed: set[Way] = set()
        self._flow = {way: asyncio.Event() for way in BOTH}
        self._cut_each: int | None = None
        self._cut_after: dict[Way, int | None] = dict.fromkeys(BOTH, None)
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._healed = asyncio.Event()
        self.heal()

    # -- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; also again after `refuse`, on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        await self.refuse()
        tasks = [connection.task for connection in self._open]
        self.cut()
        if tasks:
            await asyncio.wait(tasks, timeout=CONNECT_LIMIT_S)

    # -- controls ---------------------------------------------------------------------------------------------

    def swallow(self, *ways: Way) -> None:
        """Black hole: bytes, and the end of the stream, vanish; both ways unless named. Connections stay open."""
        self._swallowed |= set(ways or BOTH)
        self._healed.clear()

    def lose(self) -> None:
        """What a NAT does that has forgotten them: the open connections are black holes for ever, new ones are not."""
        for connection in self._open:
            connection.lost = True

    def stall(self, *ways: Way) -> None:
        """Pass nothing on and read nothing; all of it comes later, when healed."""
        for way in ways or BOTH:
            self._flow[way].clear()

    def heal(self) -> None:
        """As a good network again; what was swallowed is lost."""
        self._swallowed.clear()
        self._healed.set()
        for way in BOTH:
            self._flow[way].set()
            self.delay_s[way] = 0.0
            self._cut_after[way] = None
        self._cut_each = None
        self.watch = None

    def cut_after(self, n_bytes: int, way: Way = Way.TO_CLIENT) -> None:
        """End the connection that carries the n-th byte from now on, exactly after it (0: before the next); once."""
        self._cut_after[way] = n_bytes

    def cut_each_after(self, n_bytes: int) -> None:
        """End every connection from now on exactly after its n-th byte to the client, until healed."""
        self._cut_each = n_bytes

    def cut(self) -> None:
        """Reset (RST) every open connection now."""
        for connection in list(self._open):
            for writer in connection.writers:
                _reset(writer)
            connection.task.cancel()

    async def refuse(self) -> None:
        """Take no new connection (ECONNREFUSED); the open ones live on. `start` takes them again."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def open_now(self) -> int:
        """Connections that are up."""
        return len(self._open)

    # -- passing on -------------------------------------------------------------------------------------------

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(task, client_in, [client_out])
        self._open.add(connection)
        # What a client has closed may take a moment to end on the server's side: it holds it no more.
        self.open_most = max(self.open_most, sum(not one.client.at_eof() for one in self._open))
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                server_in, server_out = await asyncio.open_connection(*self.target)
            connection.writers.append(server_out)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(Way.TO_SERVER, client_in, server_out, connection))
                group.create_task(self._pump(Way.TO_CLIENT, server_in, client_out, connection))
        except* _CutError:
            pass
        except* (OSError, TimeoutError):
            for writer in connection.writers:
                _reset(writer)
        finally:
            self._open.discard(connection)
            for writer in connection.writers:
                writer.close()

    async def _pump(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        left = self._cut_each if way is Way.TO_CLIENT else None
        while True:
            await self._flow[way].wait()
            chunk = await source.read(CHUNK_BYTES)
            await self._flow[way].wait()
            if way in self._swallowed or connection.lost:
                if not chunk:
                    await (asyncio.Event() if connection.lost else self._healed).wait()
                    break
                continue
            if not chunk:
                break
            if self.delay_s[way]:
                await asyncio.sleep(self.delay_s[way])
            if self.watch is not None:
                chunk = self.watch(way, chunk)
                if way in self._swallowed or connection.lost:  # the watcher may have asked for it
                    continue
            limit = left if left is not None else self._cut_after[way]
            if limit is not None and len(chunk) >= limit:
                self._cut_after[way] = None
                await self._pass_on(way, chunk[:limit], sink)
                # A reset at once would take back bytes that the other side has not read yet: FIN here, RST there.
                for writer in connection.writers:
                    if writer is not sink:
                        _reset(writer)
                raise _CutError
            if left is not None:
                left -= len(chunk)
            elif limit is not None:
                self._cut_after[way] = limit - len(chunk)
            await self._pass_on(way, chunk, sink)
        with suppress(OSError, RuntimeError):
            sink.write_eof()

    async def _pass_on(self, way: Way, chunk: bytes, sink: asyncio.StreamWriter) -> None:
        if not chunk:
            return
        self.passed[way] += len(chunk)
        if self.recording:
            self.seen[way] += chunk
        sink.write(chunk)
        await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def fault_proxy() -> AsyncIterator[Callable[[str, int], Awaitable[FaultProxy]]]:
    """A maker of proxies, stopped with the test: `proxy = await fault_proxy(host, port)`."""
    made: list[FaultProxy] = []

    async def make(host: str, port: int) -> FaultProxy:
        proxy = FaultProxy(host, port)
        await proxy.start()
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        await proxy.stop()
