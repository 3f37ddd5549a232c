"""A command's question → its answer, on an account whose INBOX is followed while mail comes in. Dovecot, NATS.

One consumer asks one thing after another, each verb in its turn; every answer is looked at.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import median, quantiles
from typing import Any, Final

import nats
from nats.aio.client import Client

from tests.bench.bus import ACCOUNT, jetstream, reading, running, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.peers.corpus import messages
from tests.bench.table import Columns, tell

MESSAGES: Final = 1_000
ARRIVALS_A_SECOND: Final = 20
ANSWER_LIMIT_S: Final = 30.0
# A connection for commands logs in at the first one.
WARM_UP: Final = 5
VERBS: Final = ("search", "get", "flags", "move")
HEAD: Final = ("verb", "asked", "p50", "p99")


async def commands(ground: Ground, each: int, runs: int) -> Columns:
    """`each` questions of every verb in every turn."""
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for number in range(runs):
        turn = await _turn(ground, f"commands{number}", each)
        for verb, times in turn.items():
            taken[verb] += times
        shown = ", ".join(f"{verb} {median(times):.1f} ms" for verb, times in turn.items())
        tell(f"commands {number + 1}/{runs}: p50 {shown}")
    rows: list[tuple[str, ...]] = [
        (verb, f"{len(times)}", f"{median(times):.1f} ms", f"{_p99(times):.1f} ms") for verb, times in taken.items()
    ]
    title = f"commands, a mailbox of {MESSAGES:,} typical mails, {ARRIVALS_A_SECOND} more a second: asked → answered"
    return Columns(title, HEAD, rows)


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[98]


async def _turn(ground: Ground, user: str, each: int) -> dict[str, list[float]]:
    await ground.fill(user, MESSAGES, "typical")
    async with ground.turn("mailbus") as turn, jetstream(turn) as context:
        with ground.dovecot.client(user) as client:
            client.create("Archive")
        async with running(turn, reading(ground, user, initial="all")) as one:
            await wait_messages(context, "MAIL_IN", "mail.in.>", MESSAGES + 1, one)
            nc = await nats.connect(turn.nats_url)
            arrivals = asyncio.create_task(_arrivals(ground, user))
            try:
                return await _asked(nc, each)
            finally:
                arrivals.cancel()
                with suppress(asyncio.CancelledError):
                    await arrivals
                await nc.close()


async def _arrivals(ground: Ground, user: str) -> None:
    """Mail for as long as it is not cancelled."""
    with ground.dovecot.client(user) as client:
        for raw in itertools.cycle(messages(200, "typical")):
            await asyncio.to_thread(client.append, "INBOX", "", "", raw)
            await asyncio.sleep(1 / ARRIVALS_A_SECOND)


async def _asked(nc: Client, each: int) -> dict[str, list[float]]:
    chance = random.Random(5)

    async def ask(verb: str, **question: Any) -> dict[str, Any]:
        answer = await nc.request(f"mail.cmd.{ACCOUNT}.{verb}", json.dumps(question).encode(), timeout=ANSWER_LIMIT_S)
        if answer.headers and "Nats-Service-Error" in answer.headers:
            raise BenchError(f"{verb}: {answer.headers['Nats-Service-Error']}")
        return dict(json.loads(answer.data))

    found = await ask("search", mailbox="INBOX", limit=500)
    ids: list[str] = found["ids"]
    away: str | None = None

    async def search() -> bool:
        number = chance.randrange(MESSAGES)
        said = await ask("search", mailbox="INBOX", filter={"subject": f"Message {number}", "minSize": 1}, limit=50)
        return bool(said["ids"])

    async def get() -> bool:
        said = await ask("get", ids=[chance.choice(ids)], properties=["subject", "from", "size", "preview"])
        return len(said["list"]) == 1

    async def flags() -> bool:
        id = chance.choice(ids)
        said = await ask("flags", ids=[id], **{chance.choice(["add", "remove"]): ["$flagged"]})
        return id in said["updated"]

    async def move() -> bool:
        """There, and the next time back."""
        nonlocal away
        id, mailbox = (ids.pop(), "Archive") if away is None else (away, "INBOX")
        said = await ask("move", ids=[id], mailbox=mailbox)
        away = said["created"][id] if away is None else None
        return id in said["created"]

    asked: dict[str, Callable[[], Awaitable[bool]]] = dict(zip(VERBS, (search, get, flags, move), strict=True))
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for number in range(each + WARM_UP):
        for verb, question in asked.items():
            began = time.perf_counter()
            right = await question()
            if not right:
                raise BenchError(f"{verb}: not what was asked for")
            if number >= WARM_UP:
                taken[verb].append(1000 * (time.perf_counter() - began))
    return taken
