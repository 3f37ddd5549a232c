"""Work queues: pull, acknowledge, schedule. Used by outbound; one consumer an account, only while something waits."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from service.bus.errors import REQUEST_TIMEOUT_S, MessageTooLarge, js_api, raise_api_error, translated
from service.bus.guard import check_subject, header_size
from service.contract import rfc3339
from service.errors import Transient
from service.observe import step

NS: Final = 1_000_000_000
ACK_WAIT_S: Final = 30.0
MAX_ACK_PENDING: Final = 64
INACTIVE_S: Final = 300
FETCH_WAIT_S: Final = 1.0
# How much later than it was to be the end of a pull may come.
PATIENCE_S: Final = 1.0


async def publish_acknowledged(nc: Client, subject: str, payload: bytes, headers: dict[str, str]) -> int:
    """Publish and wait for the stream's acknowledgement; gives the sequence. Raises Transient, Permanent."""
    check_subject(subject)
    size = header_size(headers) + len(payload)
    if size > nc.max_payload:
        raise MessageTooLarge(f"{size} bytes; NATS takes {nc.max_payload}", where=subject)
    with translated(subject):
        reply = await nc.request(subject, payload, headers=headers or None, timeout=REQUEST_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(reply.data)
        raise_api_error(answer)
        return int(answer["seq"])


@dataclass(frozen=True, slots=True)
class Job:
    """One message in hand. It comes back after ACK_WAIT_S unless it is acknowledged or kept alive."""

    message: Msg
    subject: str
    payload: bytes
    headers: dict[str, str]
    seq: int
    stored_at: datetime
    delivered: int

    async def ack(self) -> None:
        """Done, confirmed by the server. Raises Transient."""
        step("ack.before")
        with translated(self.subject):
            await self.message.ack_sync(timeout=REQUEST_TIMEOUT_S)
        step("ack.done")

    async def in_progress(self) -> None:
        """Still at it. Raises Transient."""
        with translated(self.subject):
            await self.message.in_progress()

    async def give_back(self, delay_s: float = 0) -> None:
        """Have it delivered again, after `delay_s`. Raises Transient."""
        with translated(self.subject):
            await self.message.nak(delay=delay_s or None)


class Puller:
    """A pull consumer on one subject.

    Its own pull and not nats-py's: with more than one asked for, that one hands a job over only when all have come
    or a second is over.
    """

    def __init__(self, nc: Client, inbox: str, news: Subscription, stream: str, name: str) -> None:
        self._nc = nc
        self._inbox = inbox
        self._news = news
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._asked = 0
        self._asked_until = 0.0

    async def fetch(self, limit: int) -> list[Job]:
        """Up to `limit` jobs, as soon as there is one; empty when none came within a second. Raises Transient."""
        with translated("work queue"):
            now = time.monotonic()
            if not self._news.pending_msgs and (self._asked <= 0 or now > self._asked_until):
                request = {"batch": limit, "expires": int(FETCH_WAIT_S * NS)}
                self._asked, self._asked_until = limit, now + FETCH_WAIT_S
                await self._nc.publish(self._next, json.dumps(request).encode(), reply=self._inbox)
            jobs: list[Job] = []
            try:
                wait_s = max(0.0, self._asked_until - now) + PATIENCE_S
                self._take(await self._news.next_msg(timeout=wait_s), jobs)
            except (nats.errors.TimeoutError, TimeoutError):
                self._asked = 0
            # An earlier pull may have asked for more than is wanted now: that waits for the next call.
            while self._news.pending_msgs and len(jobs) < limit:
                self._take(await self._news.next_msg(timeout=PATIENCE_S), jobs)
            return jobs

    def _take(self, message: Msg, jobs: list[Job]) -> None:
        headers = message.headers or {}
        if not message.reply and (status := headers.get("Status")):
            self._asked = 0
            # 404 and 408: nothing (more) to be had. 409, 503: the consumer is gone.
            if status not in ("404", "408"):
                raise Transient(f"NATS: pull ended: {status} {headers.get('Description', '')}", where="work queue")
            return
        self._asked -= 1
        jobs.append(_job(message))

    async def close(self) -> None:
        """Stop pulling; the consumer ends by itself after INACTIVE_S. Raises Transient."""
        with translated("work queue"):
            await self._news.unsubscribe()


class WorkQueue:
    """One stream of work."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream

    async def puller(self, name: str, subject: str) -> Puller:
        """The consumer of a subject, made if it is not there. Raises Transient."""
        config = {
            "stream_name": self._stream,
            "config": {
                "durable_name": name,
                "filter_subject": subject,
                "ack_policy": "explicit",
                "ack_wait": int(ACK_WAIT_S * NS),
                "max_ack_pending": MAX_ACK_PENDING,
                "inactive_threshold": INACTIVE_S * NS,
                "max_deliver": -1,
            },
        }
        with translated(self._stream):
            await js_api(self._nc, f"CONSUMER.CREATE.{self._stream}.{name}.{subject}", config)
            inbox = self._nc.new_inbox()
            return Puller(self._nc, inbox, await self._nc.subscribe(inbox), self._stream, name)

    async def schedule(self, subject: str, target: str, at: datetime, payload: bytes, headers: dict[str, str]) -> None:
        """Have the message appear on `target` at a time; one that is on `subject` already is replaced. ADR-51."""
        timed = {"Nats-Schedule": f"@at {rfc3339(at)}", "Nats-Schedule-Target": target}
        await publish_acknowledged(self._nc, subject, payload, headers | timed)

    async def cancel(self, subject: str) -> int:
        """Remove a schedule that has not fired; gives how many there were. Raises Transient."""
        with translated(self._stream):
            answer = await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": subject})
        return int(answer["purged"])


def _job(message: Msg) -> Job:
    metadata = message.metadata
    return Job(
        message=message,
        subject=message.subject,
        payload=message.data,
        headers=dict(message.headers or {}),
        seq=metadata.sequence.stream,
        stored_at=metadata.timestamp,
        delivered=metadata.num_delivered,
    )
