"""What became of a mailbox's many known messages while nobody looked → events: mailbus, mbsync, imapflow.

The same mailbox in three habits of one server: with QRESYNC, with CONDSTORE alone, with neither.
"""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from nats.js import JetStreamContext

from tests.bench.bus import jetstream, running, stored, wait_messages
from tests.bench.ground import NODE, BenchError, Ground, Turn, call, program
from tests.bench.programs import mbsyncrc
from tests.bench.table import OURS, Columns, tell
from tests.servers.dovecot import HABITS, Dovecot
from tests.servers.imap_server import PASSWORD, account_of
from tests.servers.proxy import FaultProxy, Way

USER: Final = "resync"
SERVERS: Final = {"qresync": "QRESYNC", "condstore": "CONDSTORE alone", "snapshot": "neither"}
CHANGED: Final = 1_000
REMOVED: Final = 100
SETS_OF: Final = 200
MBSYNC: Final = "mbsync, `FSync no` (Maildir, no events)"
NODE_STACK: Final = "imapflow + nats.js"
HEAD: Final = ("program", *SERVERS.values(), "memory, peak")


@dataclass
class Stage:
    """One mailbox, one address that stays the same, and what each program keeps between its runs."""

    server: Dovecot
    proxy: FaultProxy
    turn: Turn
    context: JetStreamContext
    there: list[int]
    flagged: set[int] = field(default_factory=set)
    greeted_at: float = 0.0
    peak_kib: dict[str, int] = field(default_factory=dict)

    def watch(self, _way: Way, chunk: bytes) -> bytes:
        """The greeting passes."""
        self.greeted_at = self.greeted_at or time.time()
        return chunk

    def seconds(self, ended: float) -> float:
        """What a run took. Raises BenchError where its program did not connect."""
        began, self.greeted_at = self.greeted_at, 0.0
        if not began:
            raise BenchError("nobody connected")
        return ended - began


async def resync(ground: Ground, count: int, runs: int) -> Columns:
    """`runs` disturbances in each habit, told by each program from what it kept."""
    server = Dovecot(ground.folder / "resync")
    server.root.mkdir(mode=0o755)
    _fill(server, count)
    proxy = FaultProxy(server.host, 0)
    await proxy.start()
    programs = {OURS: _mailbus, MBSYNC: _mbsync, NODE_STACK: _node}
    taken: dict[str, dict[str, list[float]]] = {name: {habit: [] for habit in SERVERS} for name in programs}
    try:
        async with ground.turn("resync") as turn, jetstream(turn) as context:
            stage = Stage(server, proxy, turn, context, list(range(1, count + 1)))
            proxy.watch = stage.watch
            for habit in SERVERS:
                await _serve(stage, habit)
                if habit == "qresync":
                    await _learn(stage, programs, count)
                for number in range(runs):
                    await asyncio.to_thread(_disturb, stage, number)
                    await _round(stage, programs, habit, number, taken)
    finally:
        await proxy.stop()
        await asyncio.to_thread(server.stop)
    rows: list[tuple[str, ...]] = [
        (name, *(f"{median(turns):.2f} s" for turns in habits.values()), _memory(stage.peak_kib.get(name)))
        for name, habits in taken.items()
    ]
    title = f"{count:,} known messages, of which {CHANGED:,} changed and {REMOVED:,} were removed: greeting → told"
    return Columns(title, HEAD, rows)


def _memory(kib: int | None) -> str:
    return "" if kib is None else f"{kib / 1024:.0f} MiB"


def _fill(server: Dovecot, count: int) -> None:
    """A Maildir, file by file: what IMAP would take minutes for."""
    maildir = server.root / "home" / USER / "Maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    for n in range(count):
        text = f"Subject: {n}\r\nMessage-ID: <{n}@example.org>\r\n\r\n{n}\r\n"
        (maildir / "cur" / f"{1_700_000_000 + n}.M{n}.bench:2,").write_text(text, newline="")
    owner = account_of("dovecot").pw_name
    for found in [maildir.parent, *maildir.parent.rglob("*")]:
        shutil.chown(found, owner)


async def _serve(stage: Stage, habit: str) -> None:
    await asyncio.to_thread(stage.server.stop)
    stage.server.extra = HABITS[habit]
    await asyncio.to_thread(stage.server.start)
    stage.proxy.target = (stage.server.host, stage.server.imap)

    def warm() -> None:
        with stage.server.client(USER) as client:
            client.select("INBOX")
            client.fetch("1:*", "(UID FLAGS)")

    await asyncio.to_thread(warm)


async def _learn(stage: Stage, programs: dict[str, Callable[[Stage], Awaitable[float]]], count: int) -> None:
    """Each program's first run: it meets the whole mailbox."""
    async with running(stage.turn, _account(stage)) as one:
        await wait_messages(stage.context, "MAIL_IN", "mail.in.>", count + 1, one)
    stage.seconds(time.time())
    tell(f"resync: mailbus knows {count:,}")
    for name in (MBSYNC, NODE_STACK):
        await programs[name](stage)
        tell(f"resync: {name} knows {count:,}")


def _disturb(stage: Stage, number: int) -> None:
    """Another client flags or unflags CHANGED messages, here and there, and expunges REMOVED others."""
    chance = random.Random(f"{stage.server.extra}{number}")
    picked = chance.sample(stage.there, CHANGED + REMOVED)
    changed, removed = picked[:CHANGED], set(picked[CHANGED:])
    plain = [uid for uid in changed if uid not in stage.flagged]
    with stage.server.client(USER) as client:
        client.select("INBOX")
        for sign, uids, flag in (
            ("+", plain, r"(\Flagged)"),
            ("-", [uid for uid in changed if uid in stage.flagged], r"(\Flagged)"),
            ("+", sorted(removed), r"(\Deleted)"),
        ):
            for at in range(0, len(uids), SETS_OF):
                client.uid("STORE", ",".join(map(str, uids[at : at + SETS_OF])), f"{sign}FLAGS.SILENT", flag)
        client.expunge()
    stage.there = [uid for uid in stage.there if uid not in removed]
    stage.flagged = (stage.flagged ^ set(changed)) - removed


async def _round(
    stage: Stage,
    programs: dict[str, Callable[[Stage], Awaitable[float]]],
    habit: str,
    number: int,
    taken: dict[str, dict[str, list[float]]],
) -> None:
    names = list(programs)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        seconds = await programs[name](stage)
        taken[name][habit].append(seconds)
        tell(f"resync {SERVERS[habit]} {number + 1} {name}: {seconds:.2f} s")


def _account(stage: Stage) -> dict[str, object]:
    account = {"id": "box", "address": f"{USER}@example.com", "username": USER, "password": PASSWORD}
    imap = {"host": "127.0.0.1", "port": stage.proxy.port, "security": "none"}
    return account | {"incoming": {"imap": imap, "initial": "all"}}


async def _mailbus(stage: Stage) -> float:
    """To the stream's timestamp of the last event."""
    before = (await stage.context.stream_info("MAIL_IN")).state.messages
    async with running(stage.turn, _account(stage)) as one:
        await wait_messages(stage.context, "MAIL_IN", "mail.in.>", before + CHANGED + REMOVED, one)
        assert one.process is not None
        peak = _peak_kib(one.process.pid)
    stage.peak_kib[OURS] = max(peak, stage.peak_kib.get(OURS, 0))
    events = (await stored(stage.context, "MAIL_IN"))[before:]
    kinds = [event.kind for event in events]
    if (kinds.count("changed"), kinds.count("removed"), len(kinds)) != (CHANGED, REMOVED, CHANGED + REMOVED):
        raise BenchError(f"mailbus: {len(kinds)} events, {kinds.count('changed')} changed")
    return stage.seconds(events[-1].at.timestamp())


async def _mbsync(stage: Stage) -> float:
    """To its end: it changes files."""
    folder = stage.turn.folder / "mail"
    folder.mkdir(exist_ok=True)
    config = stage.turn.folder / "mbsyncrc"
    config.write_text(await mbsyncrc(stage.proxy.port, USER, folder, fsync="no") + "Expunge Near\n")
    await call([program("mbsync"), "--quiet", "--config", str(config), "all"])
    seconds = stage.seconds(time.time())
    files = [file.name for file in folder.glob("INBOX/*/*")]
    flagged = sum("F" in name.partition(":2,")[2] for name in files)
    if (len(files), flagged) != (len(stage.there), len(stage.flagged)):
        raise BenchError(f"mbsync: {len(files)} files, {flagged} flagged")
    return seconds


async def _node(stage: Stage) -> float:
    """To its end: each change is published, and what it knows is written."""
    file = stage.turn.folder / "node.json"
    first = not file.exists()
    where = ["127.0.0.1", str(stage.proxy.port), USER, PASSWORD, stage.turn.nats_url, str(file)]
    said = await call([program("node"), "node-resync.mjs", *where], cwd=NODE)
    seconds = stage.seconds(time.time())
    result = json.loads(said.strip().splitlines()[-1])
    told = (0, 0) if first else (CHANGED, REMOVED)
    if (result["changed"], result["removed"], result["known"]) != (*told, len(stage.there)):
        raise BenchError(f"imapflow: {result}")
    return seconds


def _peak_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise BenchError(f"no VmHWM of process {pid}")
