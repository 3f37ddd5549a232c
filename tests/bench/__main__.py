"""`make bench ARGS="--runs 3 --only typical send"`: runs the works, prints their tables, writes them where asked."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from service.parsing import COMPILED
from tests.bench.commands import commands
from tests.bench.ground import (
    ROOT,
    BenchError,
    Ground,
    check_programs,
    install_getmail,
    install_node_packages,
    standing,
)
from tests.bench.idle import idle
from tests.bench.ingest import ingest
from tests.bench.latency import latency
from tests.bench.machine import measured, versions
from tests.bench.pop3 import pop3
from tests.bench.queued import backlog, send_latency
from tests.bench.resync import resync
from tests.bench.send import send
from tests.bench.table import Columns, Rates, text, write

Work = Callable[[Ground, int, int], Awaitable[Rates | Columns]]

WORKS: Final[dict[str, Work]] = {
    "typical": lambda ground, count, runs: ingest(ground, "typical", count, runs),
    "small": lambda ground, count, runs: ingest(ground, "small", count, runs),
    "pop3": lambda ground, count, runs: pop3(ground, "typical", count, runs),
    "pop3-small": lambda ground, count, runs: pop3(ground, "small", count, runs),
    "send": lambda ground, count, runs: send(ground, "typical", count, runs),
    "send-small": lambda ground, count, runs: send(ground, "small", count, runs),
    "send-latency": send_latency,
    "backlog": backlog,
    "latency": latency,
    "idle": idle,
    "resync": resync,
    "commands": commands,
}
# Mails; of latency: mails into each account; of idle: accounts; of resync: known messages; of
# commands: questions of each verb.
COUNTS: Final = {
    "typical": 3_000,
    "small": 10_000,
    "pop3": 3_000,
    "pop3-small": 10_000,
    "send": 5_000,
    "send-small": 5_000,
    "send-latency": 80,
    "backlog": 100_000,
    "latency": 40,
    "idle": 200,
    "resync": 100_000,
    "commands": 200,
}
QUICK: Final = {
    "typical": 300,
    "small": 1_000,
    "pop3": 300,
    "pop3-small": 1_000,
    "send": 500,
    "send-small": 500,
    "send-latency": 8,
    "backlog": 2_000,
    "latency": 5,
    "idle": 40,
    "resync": 5_000,
    "commands": 20,
}
DOCUMENT: Final = ROOT / "docs" / "bench.md"


# The block that all works share; its marks stand after the tables.
VERSIONS: Final = "versions"


async def _run(names: list[str], counts: dict[str, int], runs: int, keep: Callable[[dict[str, str]], None]) -> None:
    """Each work's block is handed to `keep` as soon as it is there: what broke off later does not cost it."""
    async with standing() as ground:
        for name in names:
            table = await WORKS[name](ground, counts[name], runs)
            keep({name: f"{text(table)}\n\n{measured(runs)}"})
    keep({VERSIONS: text(versions())})


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="mailbus beside its peers.")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="turns of every program (3)")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="NAME", help=", ".join(WORKS))
    parser.add_argument("--quick", action="store_true", help="small counts: shows that it works, not how fast")
    parser.add_argument("--accounts", type=int, metavar="N", help="idle accounts (200)")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/bench.md; those of other works stay"
    )
    words = parser.parse_args()
    if words.write and (words.quick or not COMPILED):
        parser.error("--write takes a run with full counts of the compiled modules: no --quick, and by `make bench`")
    if words.runs < 1 or (words.accounts is not None and words.accounts < 2):
        parser.error("--runs is 1 or more, --accounts 2 or more")
    counts = QUICK if words.quick else COUNTS
    if words.accounts is not None:
        counts = counts | {"idle": words.accounts}

    def keep(blocks: dict[str, str]) -> None:
        for block in blocks.values():
            print(block, end="\n\n", flush=True)
        if words.write:
            write(DOCUMENT, blocks)

    try:
        check_programs()
        install_node_packages()
        install_getmail()
        asyncio.run(_run(words.only, counts, words.runs, keep))
    except (BenchError, pytest.fail.Exception) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
