"""Memory of one process with many accounts that wait in IDLE, over that of one with a single account."""

import asyncio
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.bench.bus import jetstream, running, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.table import Columns, tell
from tests.servers.imap_stub import ImapStub, serving
from tests.servers.mailbus import until

IDLE_LIMIT_S: Final = 60.0
# What a start leaves behind has had its time by then.
SETTLE_S: Final = 5.0
HEAD: Final = ("accounts", "RSS", "each further account")


async def idle(ground: Ground, accounts: int, runs: int) -> Columns:
    """Turns of one account and of many."""
    one: list[float] = []
    many: list[float] = []
    for number in range(runs):
        one.append(await _rss_kib(ground, 1))
        many.append(await _rss_kib(ground, accounts))
        tell(f"idle {number + 1}/{runs}: {one[-1] / 1024:.1f} MiB with 1, {many[-1] / 1024:.1f} MiB with {accounts}")
    each = (median(many) - median(one)) / (accounts - 1)
    rows: list[tuple[str, ...]] = [
        ("1", f"{median(one) / 1024:.1f} MiB", ""),
        (f"{accounts:,}", f"{median(many) / 1024:.1f} MiB", f"{each:.1f} KiB"),
    ]
    return Columns("memory of idle accounts, one process, IMAP without TLS", HEAD, rows)


async def _rss_kib(ground: Ground, count: int) -> float:
    async with serving(ImapStub()) as stub, ground.turn("idle") as turn, jetstream(turn) as context:
        accounts = [_account(f"a{n}", stub.port) for n in range(count)]
        async with running(turn, *accounts) as one:
            await wait_messages(context, "MAIL_STATUS", "mail.account.*.connected", count, one)
            await until(
                lambda: sum(bool(connection.idling) for connection in stub.connections) == count,
                limit_s=IDLE_LIMIT_S,
                what=f"{count} connections in IDLE",
            )
            await asyncio.sleep(SETTLE_S)
            if len(stub.connections) != count:
                raise BenchError(f"{len(stub.connections)} connections for {count} accounts")
            assert one.process is not None
            return _rss_of(one.process.pid)


def _account(id: str, port: int) -> dict[str, Any]:
    imap = {"host": "127.0.0.1", "port": port, "security": "none"}
    return {"id": id, "address": f"{id}@example.com", "password": "secret", "incoming": {"imap": imap}}


def _rss_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise BenchError(f"no VmRSS of process {pid}")
