"""A stream's messages as they come, read as any consumer reads them. Used by the command line and the demo."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from service.bus.errors import translated

PATIENCE_S: Final = 1.0
# A server that was restarted has forgotten the consumer: it is made again after two of them.
HEARTBEAT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Followed:
    """A message of a stream, as it stands there."""

    seq: int
    subject: str
    headers: dict[str, str]
    payload: bytes
    stored_at: datetime


async def follow(nc: Client, stream: str, subject: str, *, whole: bool) -> AsyncIterator[Followed]:
    """Messages on `subject`, from the stream's first (`whole`) or from now on; never ends. Raises Transient.

    An ordered consumer: nothing is acknowledged, and nothing of it stays on the server.
    """
    policy = DeliverPolicy.ALL if whole else DeliverPolicy.NEW
    with translated(stream):
        context = nc.jetstream()
        subscription = await context.subscribe(
            subject, stream=stream, ordered_consumer=True, deliver_policy=policy, idle_heartbeat=HEARTBEAT_S
        )
    try:
        while True:
            with translated(stream):
                try:
                    message = await subscription.next_msg(timeout=PATIENCE_S)
                except nats.errors.TimeoutError:
                    continue
            yield Followed(
                message.metadata.sequence.stream,
                message.subject,
                dict(message.headers or {}),
                message.data,
                message.metadata.timestamp,
            )
    finally:
        with translated(stream):
            await subscription.unsubscribe()
