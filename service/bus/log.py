"""Fenced commits to the event log, and reading it back. Mail-free: messages, a fence, a subject.

Used by ingest/publish.py. Rules: docs/decisions/0001-log-is-the-cursor.md; NATS ADR-50 for batches.
"""

import asyncio
import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.nuid import NUID

from service.bus.errors import (
    BATCH_PLACES_TAKEN,
    NO_MESSAGE,
    WRONG_LAST_SEQUENCE,
    ApiError,
    CommitUnknown,
    FenceRefused,
    MessageTooLarge,
    js_api,
    raise_api_error,
    translated,
)
from service.bus.frames import hpub
from service.bus.guard import check_subject, header_size
from service.errors import Transient, verdict_of
from service.observe import metrics, step
from service.tasks import TaskGroup, cancellable

FENCE: Final = "Nats-Expected-Last-Subject-Sequence"
FENCE_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
BATCH_LIMIT_MESSAGES: Final = 1_000
# nats-server: MAX_HPUB_ARGS and the 64 KB that the server allows a header.
HEADER_LIMIT_BYTES: Final = 64 * 1024
COMMIT_TIMEOUT_S: Final = 10.0
# A stream takes 50 unfinished batches over all its writers: a process keeps to a share of them.
OPEN_BATCHES_LIMIT: Final = 8
PLACES_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class OutMessage:
    """A message to publish."""

    subject: str
    payload: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tail:
    """A message that stands in the log."""

    seq: int
    subject: str
    headers: dict[str, str]
    payload: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """The log as a whole; `first_seq` is last + 1 in an empty one."""

    created: datetime
    first_seq: int
    last_seq: int


class EventLog:
    """The stream `MAIL_IN`."""

    def __init__(self, nc: Client, stream: str, max_payload: Callable[[], int]) -> None:
        self._nc = nc
        self._stream = stream
        self._max_payload = max_payload
        self._open = asyncio.Semaphore(OPEN_BATCHES_LIMIT)
        self._ids = NUID()

    async def tail(self, filter_subject: str) -> Tail | None:
        """The last message on a subject with wildcards, read from the stream's leader. Raises Transient."""
        return await self._get({"last_by_subj": filter_subject})

    async def get(self, seq: int) -> Tail | None:
        """The message at a sequence; None where it is gone. Raises Transient."""
        return await self._get({"seq": seq})

    async def _get(self, request: dict[str, Any]) -> Tail | None:
        with translated(self._stream):
            try:
                answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
            except ApiError as exc:
                if exc.err_code == NO_MESSAGE:
                    return None
                raise
        message = answer["message"]
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        payload = base64.b64decode(message.get("data", ""))
        time = datetime.fromisoformat(message["time"])
        return Tail(message["seq"], message["subject"], headers, payload, time)

    async def bounds(self) -> StreamBounds:
        """Creation time, first and last sequence. Raises Transient."""
        with translated(self._stream):
            info = await js_api(self._nc, f"STREAM.INFO.{self._stream}")
        state = info["state"]
        return StreamBounds(datetime.fromisoformat(info["created"]), state["first_seq"], state["last_seq"])

    async def commit(self, messages: Sequence[OutMessage], *, filter_subject: str, fence: int) -> int:
        """Put all messages into the log, or none; gives the sequence of the last one.

        `fence`: the sequence of the last message on `filter_subject`, 0 without one. Before anything is sent:
        MessageTooLarge, and Permanent for a subject or header that is none. FenceRefused where the server said no,
        CommitUnknown where it said nothing: for both, read the tail. Transient where no batch could be opened.
        """
        self._check_sizes(messages)
        metrics.BATCH_EVENTS.observe(len(messages))
        fenced = {FENCE: str(fence), FENCE_SUBJECT: filter_subject}
        try:
            with cancellable():
                if len(messages) == 1:
                    only = messages[0]
                    seq = await self._finish(only, only.headers | fenced)
                else:
                    seq = await self._batch(messages, fenced)
        except ApiError as exc:
            if exc.err_code in WRONG_LAST_SEQUENCE:
                metrics.FENCE_REFUSED.inc()
            metrics.COMMITS.labels(result="refused").inc()
            raise FenceRefused(f"NATS refused the commit: {exc}", where=filter_subject) from exc
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            metrics.COMMITS.labels(result="unknown").inc()
            raise CommitUnknown(
                f"the commit's answer did not come: {type(exc).__name__}",
                where=filter_subject,
                remedy="the log is read",
            ) from exc
        metrics.COMMITS.labels(result="committed").inc()
        return seq

    def _check_sizes(self, messages: Sequence[OutMessage]) -> None:
        if not 1 <= len(messages) <= BATCH_LIMIT_MESSAGES:
            raise RuntimeError(f"{len(messages)} messages in a commit")
        limit = self._max_payload()
        for message in messages:
            check_subject(message.subject)
            header = header_size(message.headers)
            if header > HEADER_LIMIT_BYTES or header + len(message.payload) > limit:
                raise MessageTooLarge(
                    f"an event of {len(message.payload)} bytes and {header} bytes of headers; NATS takes {limit}",
                    where=message.subject[:200],
                    remedy="raise max_payload of the NATS server, or lower limits.inline",
                )

    async def _batch(self, messages: Sequence[OutMessage], fenced: dict[str, str]) -> int:
        # All of it is in memory by now: an open batch that stalls holds its place for ten seconds.
        async with self._open:
            for _ in range(PLACES_TRIES):
                try:
                    return await self._batch_once(messages, fenced)
                except ApiError as exc:
                    if exc.err_code != BATCH_PLACES_TAKEN:
                        raise
                await asyncio.sleep(random.uniform(0.05, 0.3))
        raise Transient("all places for unfinished batches are taken", where=self._stream, remedy="tried again")

    async def _batch_once(self, messages: Sequence[OutMessage], fenced: dict[str, str]) -> int:
        batch = self._ids.next().decode()
        first, *middle, last = [
            (message, message.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
            for number, message in enumerate(messages, start=1)
        ]
        frames = b"".join([hpub(message.subject, headers, message.payload) for message, headers in middle])
        step("batch.before")
        try:
            async with TaskGroup() as group:
                # The first and the last are asked for their answers; the rest does not wait for the first's.
                opening = self._nc.request(
                    first[0].subject, first[0].payload, headers=first[1] | fenced, timeout=COMMIT_TIMEOUT_S
                )
                opened = group.create_task(opening, name="batch")
                await asyncio.sleep(0)
                step("batch.open")
                await self._send(frames)
                try:
                    return await self._finish(last[0], last[1] | {"Nats-Batch-Commit": "1"})
                except ApiError:
                    # Why a batch was not opened stands in the first answer; the last one only says that there is none.
                    _raise_refusal(await opened)
                    raise
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None

    async def _send(self, frames: bytes) -> None:
        if not self._nc.is_connected:
            raise nats.errors.ConnectionReconnectingError
        await self._nc._send_command(frames)
        await self._nc._flush_pending()

    async def _finish(self, message: OutMessage, headers: dict[str, str]) -> int:
        step("commit.sending")
        reply = await self._nc.request(message.subject, message.payload, headers=headers, timeout=COMMIT_TIMEOUT_S)
        step("commit.answered")
        answer = _raise_refusal(reply)
        return int(answer["seq"])


def _raise_refusal(reply: Msg) -> dict[str, Any]:
    """A PubAck, or the empty answer to a batch's first message. Raises ApiError."""
    answer: dict[str, Any] = json.loads(reply.data) if reply.data else {}
    raise_api_error(answer)
    return answer


def parse_headers(block: bytes) -> dict[str, str]:
    """A NATS header block (`NATS/1.0`, lines, CRLF) → its fields; of a name that comes twice, the last one."""
    fields: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return fields
