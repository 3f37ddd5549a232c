"""Three real nats-servers in one cluster on loopback → a fixture. Each is killed and restarted on its own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from tests.servers.nats import NatsServer

SIZE: Final = 3
READY_LIMIT_S: Final = 40.0


class NatsCluster:
    """`urls` of all; a stream of three replicas lives on while two of them do."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[NatsServer] = []
        ports = _free_ports(SIZE)
        routes = [f"nats://127.0.0.1:{port}" for port in ports]
        for number, port in enumerate(ports):
            config = {
                "server_name": f"n{number}",
                "cluster": {"name": "three", "host": "127.0.0.1", "port": port, "routes": routes},
            }
            self.servers.append(NatsServer(folder / f"n{number}", config))

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [server.url for server in self.servers]

    async def start(self) -> None:
        """Start all, and wait until a stream of three replicas can be made."""
        for server in self.servers:
            await server.start()
        async with asyncio.timeout(READY_LIMIT_S):
            nc = await self.client()
            try:
                config = StreamConfig(name="ready", subjects=["ready"], num_replicas=SIZE)
                while True:
                    with suppress(nats.errors.Error, nats.js.errors.Error):
                        await nc.jetstream(timeout=1).add_stream(config)
                        break
                    await asyncio.sleep(0.1)
                await self.healed(nc, "ready")
                await nc.jetstream().delete_stream("ready")
            finally:
                await nc.close()

    async def client(self) -> Client:
        """A connection that finds whichever server is up."""
        return await nats.connect(self.urls, max_reconnect_attempts=-1, reconnect_time_wait=0.1)

    async def healed(self, nc: Client, stream: str) -> None:
        """Until a stream has its leader, and both followers have caught up."""
        async with asyncio.timeout(READY_LIMIT_S):
            while not await self._whole(nc, stream):  # noqa: ASYNC110 a cluster rings no bell
                await asyncio.sleep(0.1)

    async def kill_leader(self, nc: Client, stream: str) -> NatsServer:
        """kill -9 the server that leads a stream; gives it, to be started again."""
        name = await self._leader(nc, stream)
        server = next(one for one in self.servers if one.config["server_name"] == name)
        await server.kill()
        return server

    async def move_leader(self, nc: Client, stream: str) -> None:
        """Have another server lead a stream, as before a server is taken out."""
        before = await self._leader(nc, stream)
        await nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", b"", timeout=READY_LIMIT_S)
        async with asyncio.timeout(READY_LIMIT_S):
            while await self._leader(nc, stream) == before:  # noqa: ASYNC110 a cluster rings no bell
                await asyncio.sleep(0.1)

    async def _leader(self, nc: Client, stream: str) -> str:
        """The server that leads a stream, once there is one."""
        async with asyncio.timeout(READY_LIMIT_S):
            while True:
                with suppress(nats.errors.Error, nats.js.errors.Error):
                    info = await nc.jetstream(timeout=1).stream_info(stream)
                    if info.cluster is not None and info.cluster.leader:
                        return str(info.cluster.leader)
                await asyncio.sleep(0.1)

    async def _whole(self, nc: Client, stream: str) -> bool:
        try:
            info = await nc.jetstream(timeout=1).stream_info(stream)
        except (nats.errors.Error, nats.js.errors.Error):
            return False
        cluster: Any = info.cluster
        followers = cluster.replicas or []
        return bool(cluster.leader) and len(followers) == SIZE - 1 and all(one.current for one in followers)

    async def kill(self) -> None:
        """kill -9 all of them."""
        for server in self.servers:
            await server.kill()


def _free_ports(count: int) -> list[int]:
    """Routes must be known before any server runs, so their ports cannot be left to the servers."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in held]


@pytest.fixture
async def nats_cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """A cluster of one's own."""
    cluster = NatsCluster(tmp_path / "cluster")
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.kill()
