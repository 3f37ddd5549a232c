"""The server's EXISTS on the wire → the event in the log, and in a consumer's hands. Live mail, Dovecot, IDLE.

A proxy before each account sees EXISTS pass. One mail is under way in an account at a time, in all accounts at once.
"""

import asyncio
import imaplib
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from tests.bench.bus import check_distinct, jetstream, reading, running, stored, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.peers.corpus import messages
from tests.bench.table import Columns, tell
from tests.servers.proxy import FaultProxy, Way

ACCOUNTS: Final = 10
ARRIVAL_LIMIT_S: Final = 60.0
PAUSE_S: Final = 0.6
HEAD: Final = ("mails", "measured", "in the log, p50", "p99", "at a consumer, p50", "p99")


@dataclass(slots=True)
class Times:
    """Milliseconds after EXISTS, a mail each: to the stream's timestamp, and to a consumer in another process."""

    logged: list[float] = field(default_factory=list)
    consumed: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Wall-clock seconds: the stream's timestamp, and when the consumer had the message."""

    logged: float
    consumed: float


@dataclass(slots=True)
class Line:
    """One account: what its proxy saw, and the mail under way."""

    proxy: FaultProxy
    client: imaplib.IMAP4
    exists: float | None = None
    arrived: asyncio.Future[Arrival] | None = None

    def watch(self, way: Way, chunk: bytes) -> bytes:
        """Note the first EXISTS of the mail under way, before it is passed on."""
        if way is Way.TO_CLIENT and self.arrived is not None and self.exists is None and b" EXISTS\r\n" in chunk:
            self.exists = time.time()
        return chunk

    def exists_or_fail(self) -> float:
        """When EXISTS passed. Raises BenchError where an event came without it."""
        if self.exists is None:
            raise BenchError("an event, and no EXISTS before it")
        return self.exists


async def latency(ground: Ground, each: int, runs: int) -> Columns:
    """`each` mails into every account, small and typical, in every turn."""
    rows = []
    for kind in ("small", "typical"):
        turns = []
        for number in range(runs):
            times = await _turn(ground, f"{kind}{number}", kind, each)
            logged, consumed = _percentiles(times.logged), _percentiles(times.consumed)
            turns.append([logged, consumed])
            shown = [f"{p50:.1f} and {p99:.1f} ms" for p50, p99 in turns[-1]]
            tell(f"latency {kind} {number + 1}/{runs}: p50 and p99: in the log {shown[0]}, at a consumer {shown[1]}")
        figures = [f"{median(turn[i][j] for turn in turns):.1f} ms" for i in range(2) for j in range(2)]
        rows.append((kind, f"{runs} × {each * ACCOUNTS}", *figures))
    return Columns(f"EXISTS on the wire → event, {ACCOUNTS} accounts at once", HEAD, rows)


def _percentiles(values: list[float]) -> tuple[float, float]:
    """The 50th and the 99th."""
    hundredths = quantiles(values, n=100, method="inclusive")
    return median(values), hundredths[98]


async def _turn(ground: Ground, name: str, kind: str, each: int) -> Times:
    times = Times()
    async with AsyncExitStack() as stack:
        turn = await stack.enter_async_context(ground.turn("mailbus"))
        lines = {f"a{n}": await _line(stack, ground, f"{name}-{n}") for n in range(ACCOUNTS)}
        accounts = [
            reading(ground, f"{name}-{n}", port=line.proxy.port, id=id) for n, (id, line) in enumerate(lines.items())
        ]
        context = await stack.enter_async_context(jetstream(turn))
        one = await stack.enter_async_context(running(turn, *accounts))
        await wait_messages(context, "MAIL_STATUS", "mail.account.*.connected", ACCOUNTS, one)

        async def take(message: Msg) -> None:
            line = lines[message.subject.split(".")[2]]
            if line.arrived is not None and not line.arrived.done():
                line.arrived.set_result(Arrival(message.metadata.timestamp.timestamp(), time.time()))

        await context.subscribe(
            "mail.in.*.*.received", stream="MAIL_IN", cb=take, ordered_consumer=True, deliver_policy=DeliverPolicy.NEW
        )
        corpus = list(messages(each + 1, kind))
        async with asyncio.TaskGroup() as group:
            for number, line in enumerate(lines.values()):
                group.create_task(_mails(line, corpus, times, random.Random(number)))
        events = [event for event in await stored(context, "MAIL_IN") if event.kind == "received"]
        check_distinct(events, ACCOUNTS * (each + 1), "latency")
    return times


async def _line(stack: AsyncExitStack, ground: Ground, user: str) -> Line:
    proxy = FaultProxy(ground.dovecot.host, ground.dovecot.imap)
    await proxy.start()
    stack.push_async_callback(proxy.stop)
    line = Line(proxy, stack.enter_context(ground.dovecot.client(user)))
    proxy.watch = line.watch
    return line


async def _mails(line: Line, corpus: list[bytes], times: Times, chance: random.Random) -> None:
    """One after the other; the first is not counted, for it meets everything cold."""
    for number, raw in enumerate(corpus):
        # Else the accounts march in step, and a burst of ten is measured.
        await asyncio.sleep(chance.uniform(0, PAUSE_S))
        line.exists = None
        line.arrived = asyncio.get_running_loop().create_future()
        await asyncio.to_thread(line.client.append, "INBOX", "", "", raw)
        async with asyncio.timeout(ARRIVAL_LIMIT_S):
            arrival = await line.arrived
        exists = line.exists_or_fail()
        if number:
            times.logged.append(1000 * (arrival.logged - exists))
            times.consumed.append(1000 * (arrival.consumed - exists))
