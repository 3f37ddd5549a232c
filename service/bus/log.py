"""Fenced commits to the event log, and reading it back. Mail-free: messages, a fence, a subject.

Used by ingest/publish.py. Rules: docs/decisions/0001-log-is-the-cursor.md; NATS ADR-50 for batches.
"""

import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import nats.errors

from service.bus.batch import BATCH_LIMIT_MESSAGES, Batches, Staged
from service.bus.client import BusClient
from service.bus.errors import (
    NO_MESSAGE,
    WRONG_LAST_SEQUENCE,
    ApiError,
    CommitUnknown,
    FenceRefused,
    MessageTooLarge,
    NotPermitted,
    js_api,
    translated,
)
from service.bus.frames import FENCE, OutMessage
from service.bus.guard import check_subject, header_size
from service.bus.replay import Replayed, replay
from service.observe import metrics
from service.tasks import cancellable

FENCE_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
# nats-server: MAX_HPUB_ARGS and the 64 KB that the server allows a header.
HEADER_LIMIT_BYTES: Final = 64 * 1024


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
    """The log as a whole; `first_seq` is last + 1 in an empty one. `now`: what the server's clock says."""

    created: datetime
    first_seq: int
    last_seq: int
    now: datetime
    replicas: int


class EventLog:
    """The stream `MAIL_IN`."""

    def __init__(self, nc: BusClient, stream: str, max_payload: Callable[[], int]) -> None:
        self._nc = nc
        self._stream = stream
        self._max_payload = max_payload
        self._batches = Batches(nc, stream)

    @property
    def reconnects(self) -> int:
        """How often the connection was made anew: NATS may be another since, or its streams restored."""
        return int(self._nc.stats["reconnects"])

    async def tail(self, filter_subject: str) -> Tail | None:
        """The last message on a subject with wildcards, read from the stream's leader. Raises Transient."""
        return await self._get({"last_by_subj": filter_subject})

    async def get(self, seq: int) -> Tail | None:
        """The message at a sequence; None where it is gone. Raises Transient."""
        return await self._get({"seq": seq})

    async def before(self, filter_subject: str, seq: int) -> Tail | None:
        """The last message on a subject with wildcards below a sequence; None where there is none. Raises Transient.

        The server looks forward only. So: back in strides that double until one holds a message, then halved. A
        neighbour takes one look, one that lies n messages back 2 log2(n).
        """
        found: Tail | None = None
        high, low, stride = seq, seq, 1  # nothing of the subject stands from `high` up to `seq`
        while found is None and low > 1:
            high, low, stride = low, max(1, low - stride), stride * 2
            found = await self.within(filter_subject, low, high)
        while found is not None and found.seq + 1 < high:
            middle = (found.seq + 1 + high) // 2
            later = await self.within(filter_subject, middle, high)
            if later is None:
                high = middle
            else:
                found = later
        return found

    async def within(self, filter_subject: str, first: int, end: int) -> Tail | None:
        """The first message on a subject from `first` on and below `end`, None without one. Raises Transient."""
        found = await self._get({"next_by_subj": filter_subject, "seq": first})
        return found if found is not None and found.seq < end else None

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

    def replay(self, filter_subject: str, *, after: int, last: int) -> AsyncGenerator[Replayed, None]:
        """What stands on a subject with wildcards beyond `after`, up to `last`, by its headers. Raises Transient."""
        return replay(self._nc, self._stream, filter_subject, after=after, last=last)

    async def bounds(self) -> StreamBounds:
        """How far it goes, now. Raises Transient."""
        with translated(self._stream):
            info = await js_api(self._nc, f"STREAM.INFO.{self._stream}")
        state = info["state"]
        return StreamBounds(
            datetime.fromisoformat(info["created"]),
            state["first_seq"],
            state["last_seq"],
            datetime.fromisoformat(info["ts"]),
            info["config"].get("num_replicas", 1),
        )

    async def stage(self, messages: Sequence[OutMessage]) -> Staged | None:
        """A head start for a commit: all but its last message go to the server, where they are nothing yet.

        None where there is no place for it, or something is wrong: the commit will say what.
        """
        try:
            self._check_sizes(messages)
            with cancellable():
                return await self._batches.stage(messages[:-1])
        except (ApiError, MessageTooLarge, nats.errors.Error, TimeoutError, OSError):
            return None

    async def commit(
        self, messages: Sequence[OutMessage], *, filter_subject: str, fence: int, staged: Staged | None = None
    ) -> int:
        """Put all messages into the log, or none; gives the sequence of the last one.

        `fence`: the sequence of the last message on `filter_subject`, 0 without one. Before anything is sent:
        MessageTooLarge, and Permanent for a subject or header that is none. FenceRefused where the server said no,
        CommitUnknown where it said nothing: for both, read the tail. Transient where no batch could be opened, or
        where events are not permitted (NotPermitted).
        """
        # Those of a head start have passed, but for the last one.
        self._check_sizes(messages if staged is None else messages[-1:], filter_subject)
        metrics.BATCH_EVENTS.observe(len(messages))
        fenced = {FENCE: str(fence), FENCE_SUBJECT: filter_subject}
        try:
            with cancellable():
                if staged is not None:
                    # The server compares fences with the stream as it is when the batch is whole.
                    last = replace(messages[-1], headers=messages[-1].headers | fenced)
                    seq = await self._batches.finish(staged, last)
                else:
                    first = replace(messages[0], headers=messages[0].headers | fenced)
                    seq = await self._batches.publish([first, *messages[1:]])
        except NotPermitted:
            metrics.COMMITS.labels(result="refused").inc()
            raise
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

    def _check_sizes(self, messages: Sequence[OutMessage], filter_subject: str = "") -> None:
        if not 1 <= len(messages) <= BATCH_LIMIT_MESSAGES:
            raise RuntimeError(f"{len(messages)} messages in a commit")
        limit = self._max_payload()
        # One of them carries it, which may have 300 bytes.
        fence = len(filter_subject.encode())
        for message in messages:
            check_subject(message.subject)
            header = header_size(message.headers) + fence
            if header > HEADER_LIMIT_BYTES or header + len(message.payload) > limit:
                raise MessageTooLarge(
                    f"an event of {len(message.payload)} bytes and {header} bytes of headers; NATS takes {limit}",
                    where=message.subject[:200],
                    remedy="raise max_payload of the NATS server, or lower limits.inline",
                )


def parse_headers(block: bytes) -> dict[str, str]:
    """A NATS header block (`NATS/1.0`, lines, CRLF) → its fields; of a name that comes twice, the last one."""
    fields: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return fields
