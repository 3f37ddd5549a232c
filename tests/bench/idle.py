"""One process with many accounts that wait in IDLE beside one with a single account: memory, processor, the start."""

import asyncio
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.bench.bus import jetstream, running, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.table import Columns, tell
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import Mailbus, until
from tests.servers.scripted import serving

IDLE_LIMIT_S: Final = 60.0
# What a start leaves behind has had its time by then: 10,000 mailboxes' positions are copied in ten seconds.
SETTLE_S: Final = 15.0
CPU_OVER_S: Final = 10.0
# Accounts of one host begin at 25 a second, after the first 50: as many hosts as a mixed lot of customers has.
HOSTS: Final = 20
HEAD: Final = ("accounts", "RSS", "each further account", "first connected", "all connected", "of a core, idle")


@dataclass(frozen=True, slots=True)
class Seen:
    """One turn. Seconds count from the process's `started`."""

    rss_kib: float
    first_s: float
    all_s: float
    cpu: float


async def idle(ground: Ground, accounts: int, runs: int) -> Columns:
    """Turns of one account and of many."""
    one: list[Seen] = []
    many: list[Seen] = []
    for number in range(runs):
        one.append(await _turn(ground, 1))
        many.append(await _turn(ground, accounts))
        tell(
            f"idle {number + 1}/{runs}: {one[-1].rss_kib / 1024:.1f} MiB with 1, {many[-1].rss_kib / 1024:.1f} MiB"
            f" with {accounts}, all connected after {many[-1].all_s:.1f} s, {many[-1].cpu:.2%} of a core"
        )
    each = (_rss(many) - _rss(one)) / (accounts - 1)
    rows = [_row(1, one, ""), _row(accounts, many, f"{each:.1f} KiB")]
    return Columns("idle accounts, one process, IMAP without TLS", HEAD, rows)


def _rss(seen: list[Seen]) -> float:
    return median(one.rss_kib for one in seen)


def _row(accounts: int, seen: list[Seen], each: str) -> tuple[str, ...]:
    first, last, cpu = (median(getattr(one, name) for one in seen) for name in ("first_s", "all_s", "cpu"))
    return (f"{accounts:,}", f"{_rss(seen) / 1024:.1f} MiB", each, f"{first:.1f} s", f"{last:.1f} s", f"{cpu:.1%}")


async def _turn(ground: Ground, count: int) -> Seen:
    async with (
        serving(ImapStub(), host="0.0.0.0") as stub,
        ground.turn("idle") as turn,
        jetstream(turn) as context,
    ):
        accounts = [_account(f"a{n}", f"127.0.0.{n % HOSTS + 1}", stub.port) for n in range(count)]
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
            pid = one.process.pid
            before = _cpu_of(pid)
            await asyncio.sleep(CPU_OVER_S)
            first_s, all_s = _start_of(one)
            return Seen(_rss_of(pid), first_s, all_s, (_cpu_of(pid) - before) / CPU_OVER_S)


def _account(id: str, host: str, port: int) -> dict[str, Any]:
    imap = {"host": host, "port": port, "security": "none"}
    return {"id": id, "address": f"{id}@example.com", "password": "secret", "incoming": {"imap": imap}}


def _start_of(one: Mailbus) -> tuple[float, float]:
    """Seconds from `started` to the first and the last account that was connected."""
    (started,) = [_time(line) for line in one.said("started")]
    connected = [_time(line) for line in one.said("account_state") if line["state"] == "connected"]
    return (min(connected) - started).total_seconds(), (max(connected) - started).total_seconds()


def _time(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["timestamp"])


def _cpu_of(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise BenchError(f"no VmRSS of process {pid}")
