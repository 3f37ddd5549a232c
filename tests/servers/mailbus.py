"""mailbus itself as a child process, as an operator runs it, and a reader of what it put on the bus."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import nats.errors
import pytest
import yaml
from nats.aio.client import Client

from tests.servers.forked import ROOT, Forked
from tests.servers.forked import words as service_words
from tests.servers.imap_server import PASSWORD, ImapServer

if TYPE_CHECKING:  # pytest registers it as a plugin after this one
    from tests.servers.smtp import ScriptedRelay


async def until(condition: Callable[[], bool], *, limit_s: float = 30.0, what: str = "") -> None:
    """Wait for a condition, checked often; fails by name after the limit."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"not within {limit_s:g} s: {what or condition}")
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Event:
    """One message of a stream."""

    seq: int
    subject: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """The last token of its subject."""
        return self.subject.rpartition(".")[2]


class BusReader:
    """An ordinary client of the bus."""

    def __init__(self, nc: Client, prefix: str) -> None:
        self.nc = nc
        self.prefix = prefix

    async def events(self, stream: str = "IN") -> list[Event]:
        """All that a stream holds, in order."""
        context = self.nc.jetstream()
        name = f"{self.prefix.upper()}_{stream}"
        info = await context.stream_info(name)
        found: list[Event] = []
        if not info.state.messages:
            return found
        subscription = await context.subscribe(f"{self.prefix}.>", stream=name, ordered_consumer=True)
        while len(found) < info.state.messages:
            message = await subscription.next_msg(timeout=10)
            body = json.loads(message.data) if message.data[:1] == b"{" else {}
            found.append(Event(message.metadata.sequence.stream, message.subject, dict(message.headers or {}), body))
        await subscription.unsubscribe()
        return found

    async def received(self) -> list[Event]:
        """The `received` events, in order."""
        return [event for event in await self.events() if event.kind == "received"]

    async def ask(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        """An answer on `mail.admin.<verb>` that is no error; asked again while nobody listens yet, or knows it yet."""
        async with asyncio.timeout(30):
            while True:
                with suppress(nats.errors.NoRespondersError):
                    payload = json.dumps(request).encode()
                    answer = await self.nc.request(f"{self.prefix}.admin.{verb}", payload, timeout=10)
                    if "Nats-Service-Error-Code" not in (answer.headers or {}):
                        return dict(json.loads(answer.data))
                await asyncio.sleep(0.02)

    async def account_events(self, *states: str) -> list[Event]:
        """What was said of accounts, once these states are among it: a process logs one before it is published."""
        async with asyncio.timeout(30):
            while True:
                found = [event for event in await self.events("STATUS") if ".account." in event.subject]
                if not Counter(states) - Counter(event.kind for event in found):
                    return found
                await asyncio.sleep(0.05)

    async def count(self, subject: str, stream: str = "IN") -> int:
        """How many messages a stream holds under a subject."""
        name = f"{self.prefix.upper()}_{stream}"
        info = await self.nc.jetstream().stream_info(name, subjects_filter=subject)
        return sum((info.state.subjects or {}).values())

    async def wait_received(self, count: int, *, limit_s: float = 60.0) -> list[Event]:
        """Until so many mails are announced; gives them all."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while True:
            try:
                there = await self.count(f"{self.prefix}.in.*.*.received")
            except nats.js.errors.NotFoundError:
                there = 0
            if there >= count:
                return await self.received()
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"{there} of {count} mails announced within {limit_s:g} s")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def reading(url: str | list[str], prefix: str) -> AsyncIterator[BusReader]:
    """A reader of one prefix; of a cluster with all its URLs."""
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
    try:
        yield BusReader(nc, prefix)
    finally:
        await nc.close()


@dataclass
class Mailbus:
    """One process. `settings` as in the YAML file; `env` for stop points; `fresh`: in an interpreter of its own."""

    folder: Path
    settings: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    fresh: bool = False
    process: subprocess.Popen[bytes] | Forked | None = None
    runs: int = 0
    # The lines of this run that were read so far, and how far that is.
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _read_bytes: int = 0

    @property
    def log_file(self) -> Path:
        """What this run writes."""
        return self.folder / f"mailbus-{self.runs}.log"

    def log(self) -> list[dict[str, Any]]:
        """The lines of this run so far; each is read once, however often somebody asks."""
        with open(self.log_file, "rb") as file:
            file.seek(self._read_bytes)
            # The last one may be half written.
            whole, end, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole + end)
        for line in whole.splitlines():
            if line.startswith(b"{"):
                with suppress(ValueError):  # what a process wrote that was killed, and another went on in the line
                    self._lines.append(json.loads(line))
        return self._lines

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind."""
        return [line for line in self.log() if line.get("event") == event]

    def start(self, **env: str) -> None:
        """Start `mailbus run`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs += 1
        self._lines, self._read_bytes = [], 0
        file = self.folder / "mailbus.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        given = ("run", "--config", str(file))
        environment = {**os.environ, **self.env, **env}
        with open(self.log_file, "wb") as output:
            if self.fresh:
                command = [sys.executable, "-m", "service", *given]
                self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
            else:
                files = (None, self.log_file, self.log_file)
                self.process = Forked(service_words, *given, env=environment, files=files)

    def write(self, text: str) -> None:
        """Another settings file, as an editor does it: in the place of the one that is there."""
        new = self.folder / "new.yaml"
        new.write_text(text)
        new.rename(self.folder / "mailbus.yaml")

    async def started(self) -> None:
        """Until it says so."""
        await until(lambda: bool(self.said("started")) or self.exited is not None, what="mailbus did not start")
        if not self.said("started"):
            pytest.fail(f"mailbus ended with {self.exited}: {self.log_file.read_text()[-2000:]}")

    @property
    def port(self) -> int:
        """Where its HTTP server listens."""
        return int(self.said("http_listening")[0]["port"])

    @property
    def exited(self) -> int | None:
        """The exit code, None while it runs."""
        return None if self.process is None else self.process.poll()

    async def ended(self, limit_s: float = 60.0) -> int:
        """Until it ends; gives the exit code."""
        await until(lambda: self.exited is not None, limit_s=limit_s, what="mailbus did not end")
        assert self.exited is not None
        return self.exited

    async def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def settings_for(url: str, prefix: str, *accounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Settings of a process in a test."""
    return {
        "nats": {"servers": [url], "prefix": prefix},
        "http": {"listen": "127.0.0.1:0"},
        "instance": "one",
        "log": {"level": "debug", "format": "json"},
        "accounts": list(accounts),
    } | more


def imap_account(server: ImapServer, user: str, *, port: int = 0, id: str = "box", **incoming: Any) -> dict[str, Any]:
    """An account that reads a mailbox of Dovecot."""
    return {
        "id": id,
        "address": f"{user}@example.com",
        "username": user,
        "password": PASSWORD,
        "incoming": {
            "imap": {"host": server.host, "port": port or server.imap, "security": "none", "reply": "5s"},
            "initial": "all",
        }
        | incoming,
    }


def with_relay(account: dict[str, Any], relay: "ScriptedRelay", **outgoing: Any) -> dict[str, Any]:
    """An account that sends by a scripted relay too."""
    smtp = {"host": "127.0.0.1", "port": relay.port, "security": "none", "login": False}
    return account | {"outgoing": {"smtp": smtp} | outgoing}


async def words(*given: str, stdin: str = "") -> tuple[int, str, str]:
    """`mailbus …`: its exit code, standard output and standard error."""
    with tempfile.TemporaryDirectory() as folder:
        files = (asked, out, err) = tuple(Path(folder, name) for name in ("in", "out", "err"))
        asked.write_text(stdin)
        process = Forked(service_words, *given, env=os.environ, files=files)
        try:
            await until(lambda: process.poll() is not None, limit_s=60, what=f"mailbus {' '.join(given)} did not end")
        finally:
            process.kill()
        return process.wait(10), out.read_text(errors="surrogateescape"), err.read_text()


async def command(one: Mailbus, *given: str, stdin: str = "") -> tuple[int, str, str]:
    """`mailbus …` with a process's settings."""
    return await words(*given, "-c", str(one.folder / "mailbus.yaml"), stdin=stdin)


@pytest.fixture
async def mailbus(tmp_path: Path) -> AsyncIterator[Callable[..., Mailbus]]:
    """A maker of processes, killed with the test; a bug that any of them counted fails it."""
    made: list[Mailbus] = []

    def make(settings: dict[str, Any], *, fresh: bool = False, **env: str) -> Mailbus:
        one = Mailbus(tmp_path / f"mailbus{len(made)}", settings, env, fresh)
        made.append(one)
        return one

    yield make
    for one in made:
        one.kill()
    for one in made:
        for run in range(1, one.runs + 1):
            text = (one.folder / f"mailbus-{run}.log").read_text(errors="replace")
            assert '"event": "bug"' not in text, text[-4000:]
            assert '"beyond_its_rights"' not in text, text[-4000:]
            # Whatever a process met, it met it at level debug: nothing shows a password. "A secret" is a word of ours.
            assert not re.search(rf"(?<!\ba )(?<!\bthe )\b{PASSWORD}\b", text), text[-4000:]
