"""One request on an idle queue, and very many on a full one: how soon they are sent, and in how much memory."""

import asyncio
import random
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from tests.bench.bus import check_distinct, jetstream, running, sending, stored, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.send import LINE, LINES, put, queue, sink
from tests.bench.table import Columns, tell
from tests.servers.mailbus import Mailbus

PAUSE_S: Final = 0.6
# Longer than a queue's consumer is kept.
SILENCE_S: Final = 6.0
SAMPLE_EVERY_S: Final = 0.2
MB: Final = 1024 * 1024


async def send_latency(ground: Ground, count: int, runs: int) -> Columns:
    """A request that NATS has confirmed → its `sent` in the stream; one at a time, the first is not counted."""
    rows = []
    for name, number, pause in (("one now and then", count, (0.0, PAUSE_S)), ("after silence", count // 8, None)):
        turns = [await _latencies(ground, max(2, number), pause) for _ in range(runs)]
        p50 = median(median(times) for times in turns)
        p99 = median(quantiles(times, n=100, method="inclusive")[98] for times in turns)
        tell(f"send-latency {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        rows.append((name, f"{runs} × {max(2, number)}", f"{p50:.1f} ms", f"{p99:.1f} ms"))
    return Columns("request confirmed → `sent`, an idle queue", ("requests", "measured", "p50", "p99"), rows)


async def _latencies(ground: Ground, count: int, pause: tuple[float, float] | None) -> list[float]:
    chance, begun = random.Random(count), dict[str, float]()
    async with (
        ground.turn("mailbus") as turn,
        sink(turn.folder) as relay,
        jetstream(turn) as context,
        running(turn, sending(relay.port)) as one,
    ):
        for number in range(count + 1):
            await asyncio.sleep(chance.uniform(*pause) if pause else SILENCE_S)
            await put(context, number, LINE * LINES["typical"])
            begun[f"n{number}"] = time.time()
            await wait_messages(context, "MAIL_STATUS", "mail.status.>", number + 1, one)
        sent = [event for event in await stored(context, "MAIL_STATUS") if event.kind == "sent"]
        check_distinct(sent, count + 1, "send-latency")
    times = {event.headers["ce-subject"]: event.at.timestamp() for event in sent}
    return [1000 * (times[name] - at) for name, at in begun.items() if name != "n0"]


async def backlog(ground: Ground, count: int, runs: int) -> Columns:
    """So many requests of a kilobyte lie in the queue before mailbus begins; its memory until the last is sent."""
    rows = [await _backlog(ground, count) for _ in range(runs)]
    head = ("requests", "at the start", "at most", "at the end", "mails/s")
    return Columns("a queue that is full", head, rows)


async def _backlog(ground: Ground, count: int) -> tuple[str, ...]:
    async with ground.turn("mailbus") as turn, sink(turn.folder) as relay, jetstream(turn) as context:
        async with running(turn):
            pass
        await queue(context, count, LINE * LINES["small"])
        async with running(turn, sending(relay.port)) as one:
            first, began = _rss(one), time.monotonic()
            async with asyncio.TaskGroup() as group:
                seen: list[int] = []
                sampling = group.create_task(_sample(one, seen))
                await wait_messages(context, "MAIL_STATUS", "mail.status.>", count, one)
                took_s = time.monotonic() - began
                sampling.cancel()
            last = _rss(one)
        await relay.check(count)
    shown = [f"{size / MB:.0f} MB" for size in (first, max(first, *seen, last), last)]
    tell(f"backlog of {count:,}: {', '.join(shown)}, {count / took_s:,.0f}/s")
    return (f"{count:,}", *shown, f"{count / took_s:,.0f}")


async def _sample(one: Mailbus, seen: list[int]) -> None:
    while True:
        seen.append(_rss(one))
        await asyncio.sleep(SAMPLE_EVERY_S)


def _rss(one: Mailbus) -> int:
    if one.process is None or one.process.pid is None:
        raise BenchError("mailbus does not run")
    status = Path(f"/proc/{one.process.pid}/status").read_text(encoding="ascii", errors="replace")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
