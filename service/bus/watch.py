"""A bucket's keys as they change: first all of them, then each change in its order. Used by kv.py.

A consumer of its own and not nats-py's: that one mends gaps in silence, and whoever divides work by what it has seen
must know that it has seen everything. Here a gap ends the watch, and the next one begins with all keys.

In a cluster the consumer may lie on a server whose copy of the bucket is behind: what it has would be the past, and
keys that came since would look gone. So the stream's leader is asked first, and the list is as new as its answer. Such
a copy may stop later too, and its heartbeats go on: where nothing comes, the leader is asked again and again.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.nuid import NUID

from service.bus.errors import NO_MESSAGE, REQUEST_TIMEOUT_S, ApiError, js_api, translated
from service.errors import Inward, MailbusError, Transient

NS: Final = 1_000_000_000
HEARTBEAT_S: Final = 2.0
# The consumer of a process that was killed goes by itself.
INACTIVE_S: Final = 30
# Many accounts that are added in a row are divided together, and the first of them begin meanwhile.
TOGETHER: Final = 200
# A server's copy of the bucket is behind its leader's for less, or does not belong to the cluster any more.
BEHIND_S: Final = 5.0
# Heartbeats without a change between them; then the leader is asked, 10,000 accounts are quiet for days.
QUIET_HEARTBEATS: Final = 2
OPERATION: Final = "KV-Operation"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key's value, None where it is deleted or expired, and the sequence at which it became so."""

    key: str
    value: bytes | None
    seq: int


def is_marker(headers: dict[str, str]) -> bool:
    """Whether it says that the key is gone: by a client (DEL, PURGE), or by the server (expiry)."""
    return OPERATION in headers or "Nats-Marker-Reason" in headers


async def watch(nc: Client, bucket: str) -> AsyncGenerator[list[KeyChange], None]:
    """All keys as they are, in one list, once each; then the changes in their order, those together that came together.

    Raises Transient where a change may have been missed, and where the list would be older than what NATS has.
    """
    stream, prefix, subject = f"KV_{bucket}", f"$KV.{bucket}.", f"$KV.{bucket}.>"
    name = f"watch-{NUID().next().decode()}"
    inbox = nc.new_inbox()
    config = {
        "name": name,
        "deliver_policy": "last_per_subject",
        "deliver_subject": inbox,
        "filter_subject": subject,
        "ack_policy": "none",
        "max_deliver": 1,
        "idle_heartbeat": int(HEARTBEAT_S * NS),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": INACTIVE_S * NS,
    }
    with translated(bucket):
        subscription = await nc.subscribe(inbox)
    try:
        with translated(bucket):
            newest = await _newest(nc, stream, subject)
            request = {"stream_name": stream, "config": config}
            # With its name and its filter in the subject, so that permissions can be given for one stream.
            made = await js_api(nc, f"CONSUMER.CREATE.{stream}.{name}.{subject}", request)
        # What was sent before the answer was made counts as delivered there.
        first = int(made["num_pending"]) + int(made["delivered"]["consumer_seq"])
        heard = _Heard(subscription, bucket, partial(_newest, nc, stream, subject))
        yield await _all_keys(heard, prefix, first, newest)
        while True:
            came = [await heard.next(), *await heard.more()]
            yield [_change(message, prefix) for message in came]
    finally:
        with suppress(MailbusError), translated(bucket):
            await subscription.unsubscribe()
            await js_api(nc, f"CONSUMER.DELETE.{stream}.{name}")


async def _newest(nc: Client, stream: str, subject: str) -> int:
    """The sequence of the last message that the stream's leader has; 0 without any."""
    try:
        answer = await js_api(nc, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as exc:
        if exc.err_code == NO_MESSAGE:
            return 0
        raise
    return int(answer["message"]["seq"])


async def _all_keys(heard: "_Heard", prefix: str, first: int, newest: int) -> list[KeyChange]:
    """What the consumer found, `first` messages, and what comes until it has the `newest`. Raises Transient."""
    keys: dict[str, KeyChange] = {}

    async def hear() -> int:
        change = _change(await heard.next(), prefix)
        keys.pop(change.key, None)
        keys[change.key] = change
        return change.seq

    last = 0
    for _ in range(first):
        last = await hear()
    try:
        async with asyncio.timeout(BEHIND_S):
            while last < newest:
                last = await hear()
    except TimeoutError:
        raise Inward("NATS: a watch is behind what the leader has", where=heard.bucket) from None
    return list(keys.values())


class _Heard:
    """What the consumer delivers, without its heartbeats and without a gap."""

    def __init__(self, subscription: Subscription, bucket: str, newest: Callable[[], Awaitable[int]]) -> None:
        self._subscription = subscription
        self.bucket = bucket
        self._newest = newest
        self._count = 0
        # The last sequence that came, and one that has to come.
        self._last = 0
        self._missing = 0

    async def next(self) -> Msg:
        """The next message. Raises Transient for silence, the consumer's end, a gap, and one that does not come.

        What the leader had at a look before and has not come by the next one does not come.
        """
        quiet = 0
        while (message := await self._read()) is None:
            quiet += 1
            if quiet % QUIET_HEARTBEATS == 0:
                if self._missing > self._last:
                    raise Inward("NATS: a watch is deaf: it does not tell what the leader has", where=self.bucket)
                with suppress(Transient), translated(self.bucket):
                    self._missing = await self._newest()
        return message

    async def more(self) -> list[Msg]:
        """What has come by now, without waiting. Raises as `next` does."""
        found: list[Msg] = []
        while self._subscription.pending_msgs and len(found) < TOGETHER - 1:
            if (message := await self._read()) is not None:
                found.append(message)
        return found

    async def _read(self) -> Msg | None:
        """What comes next; None for a heartbeat."""
        with translated(self.bucket):
            try:
                message = await self._subscription.next_msg(timeout=HEARTBEAT_S + REQUEST_TIMEOUT_S)
            except nats.errors.TimeoutError:
                raise Inward("NATS: a watch fell silent", where=self.bucket) from None
        if not message.reply:
            headers = message.headers or {}
            if headers.get("Status") != "100":
                raise Inward(f"NATS: a watch ended: {headers.get('Status')}", where=self.bucket)
            if headers.get("Nats-Last-Consumer", str(self._count)) != str(self._count):
                raise Inward("NATS: a watch missed changes", where=self.bucket)
            return None
        self._count += 1
        if message.metadata.sequence.consumer != self._count:
            raise Inward("NATS: a watch missed changes", where=self.bucket)
        self._last = message.metadata.sequence.stream
        return message


def _change(message: Msg, prefix: str) -> KeyChange:
    gone = is_marker(dict(message.headers or {}))
    seq = message.metadata.sequence.stream
    return KeyChange(message.subject.removeprefix(prefix), None if gone else message.data, seq)
