"""mailbus as a user runs it, a child process, and its streams read back: how many events, which, when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import nats
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

import service.bus  # noqa: F401  # guards nats-py here too: with fast-mail-parser installed its header values are lists
from tests.bench.ground import BenchError, Ground, Turn
from tests.servers.imap_server import PASSWORD
from tests.servers.mailbus import Mailbus

ACCOUNT: Final = "box"
LOOK_EVERY_S: Final = 0.2
SILENCE_LIMIT_S: Final = 120.0


def settings(url: str, *accounts: dict[str, Any]) -> dict[str, Any]:
    """Settings with nothing in them but where things are."""
    return {"nats": {"servers": [url]}, "http": {"listen": "127.0.0.1:0"}, "accounts": list(accounts)}


def reading(ground: Ground, user: str, *, port: int = 0, id: str = ACCOUNT, **incoming: Any) -> dict[str, Any]:
    """An account that reads a user's INBOX on Dovecot, or on what listens on `port`."""
    imap = {"host": "127.0.0.1", "port": port or ground.dovecot.imap, "security": "none"}
    account = {"id": id, "address": f"{user}@example.com", "username": user, "password": PASSWORD}
    return account | {"incoming": {"imap": imap} | incoming}


def drop(ground: Ground, user: str) -> dict[str, Any]:
    """An account that reads all of a user's maildrop on Dovecot."""
    pop3 = {"host": "127.0.0.1", "port": ground.dovecot.pop3, "security": "none"}
    account = {"id": ACCOUNT, "address": f"{user}@example.com", "username": user, "password": PASSWORD}
    return account | {"incoming": {"pop3": pop3, "initial": "all"}}


def sending(port: int) -> dict[str, Any]:
    """An account that sends to a relay in clear text, without a login."""
    smtp = {"host": "127.0.0.1", "port": port, "security": "none", "login": False}
    return {"id": ACCOUNT, "address": "a@x.example", "outgoing": {"smtp": smtp}}


@asynccontextmanager
async def running(turn: Turn, *accounts: dict[str, Any]) -> AsyncIterator[Mailbus]:
    """mailbus until the end of the block. Raises BenchError where it logged a bug."""
    one = Mailbus(turn.folder / "mailbus", settings(turn.nats_url, *accounts), fresh=True)
    one.start()
    try:
        await one.started()
        yield one
        await one.stop()
    finally:
        one.kill()
    if one.said("bug"):
        raise BenchError(f"mailbus counted a bug: {one.said('bug')[0]}")


@asynccontextmanager
async def jetstream(turn: Turn) -> AsyncIterator[JetStreamContext]:
    """A client of its own."""
    nc = await nats.connect(turn.nats_url)
    try:
        yield nc.jetstream()
    finally:
        await nc.close()


async def wait_messages(context: JetStreamContext, stream: str, subject: str, count: int, one: Mailbus) -> None:
    """Until a stream holds so many under a subject. Raises BenchError when nothing new came for two minutes."""
    loop = asyncio.get_running_loop()
    there, since = -1, loop.time()
    while there < count:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            info = await context.stream_info(stream, subjects_filter=subject)
        except NotFoundError:
            continue
        found = sum((info.state.subjects or {}).values())
        if found != there:
            there, since = found, loop.time()
        if one.exited is not None or loop.time() - since > SILENCE_LIMIT_S:
            raise BenchError(f"{there} of {count} in {stream}:\n{one.log_file.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream: its subject's last token, headers, and the stream's own timestamp."""

    kind: str
    headers: dict[str, str]
    at: datetime


async def stored(context: JetStreamContext, stream: str) -> list[Stored]:
    """All that a stream holds, in order, without the bodies."""
    last = (await context.stream_info(stream)).state.last_seq
    found: list[Stored] = []
    if not last:
        return found
    config = ConsumerConfig(headers_only=True)
    subscription = await context.subscribe(">", stream=stream, ordered_consumer=True, config=config)
    seq = 0
    while seq < last:
        message = await subscription.next_msg(timeout=30)
        seq = message.metadata.sequence.stream
        kind = message.subject.rpartition(".")[2]
        found.append(Stored(kind, dict(message.headers or {}), message.metadata.timestamp))
    await subscription.unsubscribe()
    return found


def check_distinct(events: list[Stored], count: int, what: str) -> None:
    """Raises BenchError unless there are exactly `count`, each with an id of its own and about another thing."""
    ids = {event.headers["ce-id"] for event in events}
    about = {(event.headers["ce-source"], event.headers["ce-subject"]) for event in events}
    if not len(events) == len(ids) == len(about) == count:
        raise BenchError(
            f"{what}: {len(events)} events, {len(ids)} ce-ids, {len(about)} subjects, and not {count} of each"
        )


async def check_empty(context: JetStreamContext, stream: str) -> None:
    """Raises BenchError unless a stream holds nothing."""
    there = (await context.stream_info(stream)).state.messages
    if there:
        raise BenchError(f"{there} messages in {stream}")
