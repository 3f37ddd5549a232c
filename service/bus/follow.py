"""A stream's messages as they come, read as any consumer reads them. Used by the command line and the demo."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from service.bus.errors import NOT_FOUND, ApiError, js_api, translated

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


async def follow(nc: Client, stream: str, subject: str, *, after: int | None) -> AsyncIterator[Followed]:
    """Messages on `subject` after a sequence, None for from now on; never ends. Raises Transient.

    An ordered consumer: nothing is acknowledged, and nothing of it stays on the server.
    """
    with translated(stream):
        context = nc.jetstream()
        # Not "new": a consumer that is made again after a break would take the stream from its beginning.
        first = (await last_seq(nc, stream) if after is None else after) + 1
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first)
        subscription = await context.subscribe(
            subject, stream=stream, ordered_consumer=True, config=config, idle_heartbeat=HEARTBEAT_S
        )
    try:
        while True:
            with translated(stream):
                try:
                    message = await subscription.next_msg(timeout=PATIENCE_S)
                except nats.errors.TimeoutError:
                    continue
            if message.metadata.sequence.stream < first:
                continue  # nor does nats-py keep to the start when it makes the consumer again
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


async def last_seq(nc: Client, stream: str) -> int:
    """The sequence of a stream's last message, 0 without a stream. Raises Transient."""
    with translated(stream):
        try:
            return int((await js_api(nc, f"STREAM.INFO.{stream}"))["state"]["last_seq"])
        except ApiError as exc:
            if exc.code != NOT_FOUND:
                raise
            return 0
