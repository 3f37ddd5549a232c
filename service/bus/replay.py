"""A part of a log → its messages in order: `replay` without their bodies, `whole` with them. Used by log.py.

A consumer of its own for each replay, which leaves nothing on the server: memory, no acknowledgements.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.nuid import NUID

from service.bus.errors import REQUEST_TIMEOUT_S, js_api, translated
from service.bus.follow import Followed
from service.errors import Inward, MailbusError

NS: Final = 1_000_000_000
# A header takes 400 bytes: what is asked for at once stays far below what the client holds.
PULL_MESSAGES: Final = 500
# Of whole messages, which may have the 1 MiB that NATS takes by default.
PULL_WHOLE: Final = 32
# The consumer of a process that was killed goes by itself.
INACTIVE_S: Final = 30


@dataclass(frozen=True, slots=True)
class Replayed:
    """A message of the log without its body. `time`: when the server took it, by its clock."""

    seq: int
    subject: str
    headers: dict[str, str]
    time: datetime


async def replay(
    nc: Client, stream: str, filter_subject: str, *, after: int, last: int
) -> AsyncGenerator[Replayed, None]:
    """The messages of a subject with wildcards beyond `after` and up to `last`. Raises Transient."""
    reading = _read(nc, stream, filter_subject, after=after, last=last, page_limit=PULL_MESSAGES, headers_only=True)
    async with aclosing(reading) as messages:
        async for message in messages:
            told = message.metadata
            yield Replayed(told.sequence.stream, message.subject, dict(message.headers or {}), told.timestamp)


async def whole(
    nc: Client, stream: str, filter_subject: str, *, after: int, last: int
) -> AsyncGenerator[Followed, None]:
    """As `replay`, with bodies. Raises Transient."""
    reading = _read(nc, stream, filter_subject, after=after, last=last, page_limit=PULL_WHOLE, headers_only=False)
    async with aclosing(reading) as messages:
        async for message in messages:
            told, headers = message.metadata, dict(message.headers or {})
            yield Followed(told.sequence.stream, message.subject, headers, message.data, told.timestamp)


async def _read(
    nc: Client, stream: str, filter_subject: str, *, after: int, last: int, page_limit: int, headers_only: bool
) -> AsyncGenerator[Msg, None]:
    if last <= after:
        return
    config = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "filter_subject": filter_subject,
        "ack_policy": "none",
        "headers_only": headers_only,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": INACTIVE_S * NS,
    }
    with translated(stream):
        name = f"replay-{NUID().next().decode()}"
        request = {"stream_name": stream, "config": config | {"name": name}}
        # With its name and its filter in the subject, so that permissions can be given for one stream.
        await js_api(nc, f"CONSUMER.CREATE.{stream}.{name}.{filter_subject}", request)
        inbox = nc.new_inbox()
        subscription = await nc.subscribe(inbox)
    try:
        reached = after
        while reached < last:
            page = await _pull(nc, stream, name, subscription, inbox, page_limit)
            for message in page:
                seq = message.metadata.sequence.stream
                if seq > last:
                    return
                reached = seq
                yield message
            if not page:
                return
    finally:
        with suppress(MailbusError), translated(stream):
            await subscription.unsubscribe()
            await js_api(nc, f"CONSUMER.DELETE.{stream}.{name}")


async def _pull(nc: Client, stream: str, name: str, subscription: Subscription, inbox: str, limit: int) -> list[Msg]:
    """The next messages; none where there are no more."""
    page: list[Msg] = []
    with translated(stream):
        request = json.dumps({"batch": limit, "no_wait": True}).encode()
        await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", request, reply=inbox)
        while len(page) < limit:
            try:
                message = await subscription.next_msg(timeout=REQUEST_TIMEOUT_S)
            except nats.errors.TimeoutError:
                raise Inward("NATS: a replay got no answer", where=stream) from None
            if not message.reply:
                status = (message.headers or {}).get("Status")
                # 404 and 408: no (more) messages.
                if status in ("404", "408"):
                    break
                raise Inward(f"NATS: a replay ended: {status}", where=stream)
            page.append(message)
    return page
