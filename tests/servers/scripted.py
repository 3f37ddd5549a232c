"""What scripted servers have in common: connections that are counted, commands that are noted, an end to all of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar


@dataclass
class ScriptedConnection:
    """One client, as the hooks see it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: str | bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def line(self) -> str:
        """The client's next line."""
        return (await self.reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")

    def cut(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()


C = TypeVar("C", bound=ScriptedConnection)


@dataclass(kw_only=True)
class Scripted(Generic[C]):
    """One server, on a port of its own. Its kind says what a connection is (`meet`) and answers (`answer`)."""

    commands: list[str] = field(default_factory=list)
    connections: list[C] = field(default_factory=list)
    port: int = 0
    greeting: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> C:
        """A client that connected."""
        raise NotImplementedError

    async def greet(self, connection: C) -> None:
        """What is said first."""
        await connection.send(self.greeting)

    async def answer(self, connection: C, line: str) -> bool:
        """A command; False ends the connection."""
        raise NotImplementedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        connection = self.meet(reader, writer)
        self.connections.append(connection)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.greet(connection)
            going = True
            while going:
                line = await connection.line()
                self.commands.append(line)
                going = await self.answer(connection, line)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.connections.remove(connection)
            self._tasks.discard(task)
            self.hang_up(connection)

    def hang_up(self, connection: C) -> None:
        """What was said is sent first."""
        with suppress(ConnectionError):
            connection.writer.close()

    async def stop(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


S = TypeVar("S", bound=Scripted)  # type: ignore[type-arg]  # whatever its connections are


@asynccontextmanager
async def serving(stub: S, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[S]:
    """A scripted server on a port of its own."""
    server = await asyncio.start_server(stub.serve, host, stub.port, ssl=tls, backlog=1000)
    stub.port = server.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        server.close()
        await stub.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 5)
