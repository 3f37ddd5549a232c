"""A part of the log → its messages' subjects and headers, in order, without their bodies. Used by log.py.

A consumer of its own for each replay, which leaves nothing on the server: memory, no acknowledgements.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.nuid import NUID

from service.bus.errors import REQUEST_TIMEOUT_S, js_api, translated
from service.errors import MailbusError, Transient

NS: Final = 1_000_000_000
# A header takes 400 bytes: what is asked for at once stays far below what the client holds.
PULL_MESSAGES: Final = 500
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
    if last <= after:
        return
    config = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "filter_subject": filter_subject,
        "ack_policy": "none",
        "headers_only": True,
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
            page = await _pull(nc, stream, name, subscription, inbox)
            for message in page:
                told = message.metadata
                found = Replayed(told.sequence.stream, message.subject, dict(message.headers or {}), told.timestamp)
                if found.seq > last:
                    return
                reached = found.seq
                yield found
            if not page:
                return
    finally:
        with suppress(MailbusError), translated(stream):
            await subscription.unsubscribe()
            await js_api(nc, f"CONSUMER.DELETE.{stream}.{name}")


async def _pull(nc: Client, stream: str, name: str, subscription: Subscription, inbox: str) -> list[Msg]:
    """The next messages; none where there are no more."""
    page: list[Msg] = []
    with translated(stream):
        request = json.dumps({"batch": PULL_MESSAGES, "no_wait": True}).encode()
        await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", request, reply=inbox)
        while len(page) < PULL_MESSAGES:
            try:
                message = await subscription.next_msg(timeout=REQUEST_TIMEOUT_S)
            except nats.errors.TimeoutError:
                raise Transient("NATS: a replay got no answer", where=stream) from None
            if not message.reply:
                status = (message.headers or {}).get("Status")
                # 404 and 408: no (more) messages.
                if status in ("404", "408"):
                    break
                raise Transient(f"NATS: a replay ended: {status}", where=stream)
            page.append(message)
    return page
