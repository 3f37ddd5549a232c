"""Requests that lie in the queue → a relay and a status for each: mailbus, Node's stack, and bare smtp-source."""

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from nats.js import JetStreamContext

from tests.bench import programs
from tests.bench.bus import (
    ACCOUNT,
    check_distinct,
    check_empty,
    jetstream,
    running,
    sending,
    stored,
    wait_messages,
)
from tests.bench.ground import BenchError, Ground, program
from tests.bench.table import OURS, Rates, alternate
from tests.servers.imap_server import free_ports
from tests.servers.mailbus import until

# What node-send.mjs sends.
LINE: Final = "y" * 70 + "\n"
LINES: Final = {"typical": 131, "small": 14}
AT_ONCE: Final = 500
WAIT_LIMIT_S: Final = 20.0


async def send(ground: Ground, kind: str, count: int, runs: int) -> Rates:
    """Every program's turns, each with a sink of its own."""
    text = LINE * LINES[kind]
    players = {
        OURS: partial(_mailbus, ground, count, text),
        "nats.js + nodemailer, pool of 10": partial(_node, ground, count, text),
        "smtp-source (no queue, no building)": partial(_smtp_source, ground, count, text),
    }
    return Rates(f"send {count:,} of {len(text) / 1000:.1f} KB", await alternate(f"send {kind}", players, runs))


async def _mailbus(ground: Ground, count: int, text: str) -> float:
    """From the moment the sender began (`at` of the account's `connected`) to the last `sent`, as the stream has it."""
    async with ground.turn("mailbus") as turn, sink(turn.folder) as relay, jetstream(turn) as context:
        # A first life makes the streams; then the requests are queued, as in the peer's program, before anyone reads.
        async with running(turn):
            pass
        await queue(context, count, text)
        async with running(turn, sending(relay.port)) as one:
            await wait_messages(context, "MAIL_STATUS", "mail.status.>", count, one)
            events = await stored(context, "MAIL_STATUS")
            sent = [event for event in events if event.kind == "sent"]
            check_distinct(sent, count, "send")
        (begun,) = (datetime.fromisoformat(event.headers["ce-time"]) for event in events if event.kind == "connected")
        await check_empty(context, "MAIL_OUT")
        await relay.check(count)
    return count / (sent[-1].at - begun).total_seconds()


async def queue(context: JetStreamContext, count: int, text: str) -> None:
    """So many requests of this text."""
    for first in range(0, count, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(count, first + AT_ONCE)):
                group.create_task(put(context, number, text))


async def put(context: JetStreamContext, number: int, text: str) -> None:
    """One request."""
    request = {
        "id": f"n{number}",
        "from": {"email": "a@x.example"},
        "to": [{"email": "b@y.example"}],
        "subject": f"n{number}",
        "text": text,
    }
    await context.publish(f"mail.out.{ACCOUNT}", json.dumps(request).encode(), timeout=30)


async def _node(ground: Ground, count: int, text: str) -> float:
    async with ground.turn("node") as turn, sink(turn.folder) as relay:
        rate = await programs.node_send(turn, relay.port, count, len(text) // len(LINE))
        await relay.check(count)
        return rate


async def _smtp_source(ground: Ground, count: int, text: str) -> float:
    async with ground.turn("source") as turn, sink(turn.folder) as relay:
        rate = await programs.smtp_source(relay.port, count, len(text))
        await relay.check(count)
        return rate


@dataclass(frozen=True, slots=True)
class Sink:
    """An smtp-sink that counts into a file."""

    port: int
    counts: Path

    async def check(self, count: int) -> None:
        """Raises BenchError unless it took exactly so many."""
        # Its count comes a moment after the answer it stands for.
        await until(lambda: self._messages() >= count, limit_s=WAIT_LIMIT_S, what="the relay's count")
        if self._messages() != count:
            raise BenchError(f"the relay took {self._messages()} mails, not {count}")

    def _messages(self) -> int:
        said = re.findall(rb"mesg=(\d+)", self.counts.read_bytes())
        return int(said[-1]) if said else 0


@asynccontextmanager
async def sink(folder: Path) -> AsyncIterator[Sink]:
    """A relay that takes everything, until the end of the block."""
    (port,) = free_ports(1)
    counts = folder / "sink"
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = _spawn([program("smtp-sink"), "-c", *user, f"127.0.0.1:{port}", "256"], counts)
    try:
        await until(lambda: _listens(port), limit_s=WAIT_LIMIT_S, what="smtp-sink listens")
        yield Sink(port, counts)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    with open(output, "wb") as file:
        return subprocess.Popen(command, stdout=file)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
