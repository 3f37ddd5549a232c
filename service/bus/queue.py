"""Work queues: pull, acknowledge, schedule. Used by outbound; one consumer an account, only while something waits."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from nats.aio.subscription import Subscription

from service.bus.client import BusClient
from service.bus.errors import NO_MESSAGE, RAISED, ApiError, MessageTooLarge, inward, js_api, subject_pages, translated
from service.bus.frames import pub
from service.bus.guard import check_subject, header_size
from service.bus.log import parse_headers
from service.contract import rfc3339
from service.errors import Inward
from service.observe import step

NS: Final = 1_000_000_000
ACK_WAIT_S: Final = 30.0
MAX_ACK_PENDING: Final = 64
INACTIVE_S: Final = 300
FETCH_WAIT_S: Final = 1.0
# How much later than it was to be the end of a pull may come.
PATIENCE_S: Final = 1.0
# A consumer of this name is there with another configuration.
CONSUMER_DIFFERS: Final = 10148
# "$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending>".
SHORT_TOKENS: Final = 9
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


async def publish_acknowledged(nc: BusClient, subject: str, payload: bytes, headers: dict[str, str]) -> int:
    """Publish and wait for the stream's acknowledgement; gives the sequence. Raises Transient, Permanent."""
    check_subject(subject)
    size = header_size(headers) + len(payload)
    if size > nc.max_payload:
        raise MessageTooLarge(f"{size} bytes; NATS takes {nc.max_payload}", where=subject)
    try:
        return await nc.asks.store(subject, payload, headers)
    except RAISED as exc:
        raise inward(exc, subject) from exc


class Job(msgspec.Struct, frozen=True, eq=False):
    """One message in hand. It comes back after ACK_WAIT_S unless it is acknowledged or kept alive."""

    nc: BusClient
    reply: str
    subject: str
    payload: bytes
    headers: dict[str, str]
    seq: int
    stored_at: datetime
    delivered: int

    async def ack(self) -> None:
        """Done, confirmed by the server. Raises Transient."""
        step("ack.before")
        try:
            await self.nc.asks.ask(self.reply, b"+ACK")
        except RAISED as exc:
            raise inward(exc, self.subject) from exc
        step("ack.done")

    async def done(self) -> None:
        """Done, unconfirmed: half the work of `ack`. Raises Transient.

        For whoever keeps a record of what is done: where this is lost, the job comes back and is found to be done.
        """
        step("ack.before")
        self._put(pub(self.reply, b"+ACK"))
        step("ack.done")

    async def in_progress(self) -> None:
        """Still at it. Raises Transient."""
        self._put(pub(self.reply, b"+WPI"))

    async def give_back(self, delay_s: float = 0) -> None:
        """Have it delivered again, after `delay_s`. Raises Transient."""
        delay = b' {"delay": %d}' % int(delay_s * NS) if delay_s else b""
        self._put(pub(self.reply, b"-NAK" + delay))

    def _put(self, frame: bytes) -> None:
        try:
            self.nc.put(frame)
        except RAISED as exc:
            raise inward(exc, self.subject) from exc


class Puller:
    """A pull consumer on one subject.

    Its own pull and not nats-py's: with more than one asked for, that one hands a job over only when all have come
    or a second is over, and takes 100 µs for each.
    """

    def __init__(self, nc: BusClient, stream: str, name: str) -> None:
        self._nc = nc
        self._inbox = nc.new_inbox()
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()
        self._jobs: deque[Job] = deque()
        self._ended: str | None = None
        self._asked = 0
        self._asked_until = 0.0

    async def open(self) -> None:
        """Listen for what is pulled."""
        self._subscription = await self._nc.listen(self._inbox, self._take)

    async def fetch(self, limit: int) -> list[Job]:
        """Up to `limit` jobs, as soon as there is one; empty when none came within a second. Raises Transient."""
        with translated("work queue"):
            now = asyncio.get_running_loop().time()
            if not self._jobs and (self._asked <= 0 or now > self._asked_until):
                request = b'{"batch": %d, "expires": %d}' % (limit, int(FETCH_WAIT_S * NS))
                self._asked, self._asked_until = limit, now + FETCH_WAIT_S
                self._nc.put(pub(self._next, request, self._inbox))
            self._news.clear()
            if not self._jobs and self._ended is None:
                try:
                    async with asyncio.timeout(max(0.0, self._asked_until - now) + PATIENCE_S):
                        await self._news.wait()
                except TimeoutError:
                    self._asked = 0
            if not self._jobs and (ended := self._ended) is not None:
                self._ended, self._asked = None, 0
                # 404 and 408: nothing (more) to be had. 409, 503: the consumer is gone.
                if ended not in ("404", "408"):
                    raise Inward(f"NATS: pull ended: {ended}", where="work queue")
            # An earlier pull may have asked for more than is wanted now: that waits for the next call.
            return [self._jobs.popleft() for _ in range(min(limit, len(self._jobs)))]

    def _take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        if not reply and headers.startswith(b"NATS/1.0 "):
            self._ended = headers[9:12].decode("ascii", "replace")
        else:
            self._asked -= 1
            self._jobs.append(_job(self._nc, subject, reply, payload, headers))
        self._news.set()

    async def close(self) -> None:
        """Stop pulling, and give back what nobody fetched; the consumer ends by itself after INACTIVE_S.

        Raises Transient.
        """
        with translated("work queue"):
            if self._subscription is not None:
                await self._subscription.unsubscribe()
        while self._jobs:
            # Or whoever has the queue next waits ACK_WAIT_S for it.
            await self._jobs.popleft().give_back()


class WorkQueue:
    """One stream of work."""

    def __init__(self, nc: BusClient, stream: str) -> None:
        self._nc = nc
        self._stream = stream

    async def puller(self, name: str, subject: str) -> Puller:
        """The consumer of a subject, made if it is not there. Raises Transient."""
        config = {
            "stream_name": self._stream,
            # By itself NATS gives the consumer that is there another filter, and it stays behind what it has passed.
            "action": "create",
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
            # Without the subject, which may be almost as long as a line to NATS may be.
            create = f"CONSUMER.CREATE.{self._stream}.{name}"
            try:
                await js_api(self._nc, create, config)
            except ApiError as exc:
                if exc.err_code != CONSUMER_DIFFERS:
                    raise
                # Of another version. What it has handed out comes again, and is known by its record.
                await self.drop(name)
                await js_api(self._nc, create, config)
            puller = Puller(self._nc, self._stream, name)
            await puller.open()
            return puller

    async def drop(self, name: str) -> None:
        """End a consumer at once, and not after INACTIVE_S. Raises Transient."""
        with translated(self._stream):
            await js_api(self._nc, f"CONSUMER.DELETE.{self._stream}.{name}")

    async def schedule(self, subject: str, target: str, at: datetime, payload: bytes, headers: dict[str, str]) -> None:
        """Have the message appear on `target` at a time; one that is on `subject` already is replaced. ADR-51."""
        timed = {"Nats-Schedule": f"@at {rfc3339(at)}", "Nats-Schedule-Target": target}
        await publish_acknowledged(self._nc, subject, payload, headers | timed)

    async def holds(self, seq: int) -> bool:
        """Whether a message is there still. Raises Transient."""
        with translated(self._stream):
            try:
                await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", {"seq": seq})
            except ApiError as exc:
                if exc.err_code == NO_MESSAGE:
                    return False
                raise
        return True

    async def subjects(self, under: str) -> AsyncGenerator[list[str], None]:
        """Under which something is queued or waits, as they come where there are many: one perhaps twice.

        Raises Transient.
        """
        async with aclosing(subject_pages(self._nc, self._stream, under)) as pages:
            while True:
                with translated(self._stream):
                    page = await anext(pages, None)
                if page is None:
                    return
                yield list(page)

    async def cancel(self, subject: str) -> int:
        """Remove a schedule that has not fired; gives how many there were. Raises Transient."""
        with translated(self._stream):
            answer = await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": subject})
        return int(answer["purged"])


def _job(nc: BusClient, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> Job:
    """ADR-15: `$JS.ACK.` (with `<domain>.<account>.` in the long form), stream, consumer, then five numbers."""
    to = reply.decode()
    tokens = to.split(".")
    delivered, seq, _, nanoseconds = map(int, tokens[4:8] if len(tokens) == SHORT_TOKENS else tokens[6:10])
    stored_at = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return Job(nc, to, subject.decode(), payload, parse_headers(headers), seq, stored_at, delivered)
