"""A whole INBOX into JetStream: mailbus, the two peers, and mbsync, which only downloads."""

from functools import partial
from typing import Any

from tests.bench.bus import check_distinct, check_empty, jetstream, reading, running, stored, wait_messages
from tests.bench.ground import BenchError, Ground
from tests.bench.programs import mbsync, node_ingest, python_ingest
from tests.bench.table import OURS, Rates, alternate


async def ingest(ground: Ground, kind: str, count: int, runs: int) -> Rates:
    """Every program's turns over the same mailbox of `count` mails."""
    user = f"{kind}{count}"
    size = await ground.fill(user, count, kind) // count
    programs = {
        OURS: partial(_mailbus, ground, user, count),
        "mailbus, `raw: always`": partial(_mailbus, ground, user, count, raw="always"),
        "imapflow + mailparser + nats.js": partial(node_ingest, ground, user, count),
        "IMAPClient + email + nats-py": partial(python_ingest, ground, user, count),
        "mbsync (downloads only)": partial(mbsync, ground, user, count),
        "mbsync (downloads only), `FSync no`": partial(mbsync, ground, user, count, fsync="no"),
    }
    return Rates(f"ingest {count:,} {kind} mails of {size / 1000:.1f} KB", await alternate(kind, programs, runs))


async def _mailbus(ground: Ground, user: str, count: int, **incoming: Any) -> float:
    """From the mailbox's first commit (`reset`) to its last `received`, by the stream's own timestamps."""
    account = reading(ground, user, initial="all", **incoming)
    async with ground.turn("mailbus") as turn, jetstream(turn) as context, running(turn, account) as one:
        await wait_messages(context, "MAIL_IN", "mail.in.>", count + 1, one)
        events = await stored(context, "MAIL_IN")
        received = [event for event in events if event.kind == "received"]
        check_distinct(received, count, "ingest")
        if events[0].kind != "reset" or len(events) != count + 1:
            raise BenchError(f"ingest: {len(events)} events, and the first is {events[0].kind}")
        await check_empty(context, "MAIL_DEAD")
    return count / (received[-1].at - events[0].at).total_seconds()
