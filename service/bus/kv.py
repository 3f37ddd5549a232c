"""A bucket of keys with compare-and-set. Used by ingest (cursors), outbound (sends) and fleet (presence)."""

import base64
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from service.bus.client import BusClient
from service.bus.errors import (
    NO_MESSAGE,
    RAISED,
    WRONG_LAST_SEQUENCE,
    ApiError,
    Conflict,
    MessageTooLarge,
    inward,
    js_api,
    subject_counts,
    translated,
)
from service.bus.frames import FENCE
from service.bus.guard import HEADER_OVERHEAD_BYTES, check_subject
from service.bus.log import parse_headers
from service.bus.watch import OPERATION, KeyChange, is_marker, watch
from service.errors import verdict_of
from service.tasks import TaskGroup

# Of many keys so many are asked for at once: round trips cost nothing then, and the answers are few enough to hold.
READ_AT_ONCE: Final = 64
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and the revision to update it from."""

    value: bytes
    revision: int


class KeyValue:
    """One bucket. Reads come from the stream's leader: compare-and-set on a stale read only costs a conflict more."""

    def __init__(self, nc: BusClient, bucket: str) -> None:
        self._nc = nc
        self._bucket = bucket
        self._stream = f"KV_{bucket}"

    async def get(self, key: str) -> Entry | None:
        """The value of a key; None where there is none. Raises Transient."""
        entry, _ = await self._get(key)
        return entry

    async def get_all(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The values of some keys, in their order, without those that are not there. Raises Transient."""
        found: dict[str, Entry] = {}
        for start in range(0, len(keys), READ_AT_ONCE):
            some = keys[start : start + READ_AT_ONCE]
            try:
                async with TaskGroup() as group:
                    reading = [group.create_task(self.get(key), name="key") for key in some]
            except BaseExceptionGroup as failed:
                raise verdict_of(failed) from None
            entries = [one.result() for one in reading]
            found |= {key: entry for key, entry in zip(some, entries, strict=True) if entry is not None}
        return found

    async def keys(self, under: str = ">") -> list[str]:
        """All keys that match and were ever written, but those gone for good; some may be deleted. Raises Transient."""
        prefix = f"$KV.{self._bucket}."
        with translated(self._bucket):
            found = await subject_counts(self._nc, self._stream, f"{prefix}{under}")
        return sorted(subject.removeprefix(prefix) for subject in found)

    def watch(self) -> AsyncGenerator[list[KeyChange], None]:
        """All keys in one list, then changes in lists, as they come, for ever. Raises Transient: begin again."""
        return watch(self._nc, self._bucket)

    async def _get(self, key: str) -> tuple[Entry | None, int]:
        with translated(self._bucket):
            try:
                request = {"last_by_subj": self._subject(key)}
                answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
            except ApiError as exc:
                if exc.err_code == NO_MESSAGE:
                    return None, 0
                raise
        message: dict[str, Any] = answer["message"]
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        revision = int(message["seq"])
        # A marker of the server's (expiry) or of a client's (DEL, PURGE): the key is gone, its revision is not.
        if is_marker(headers):
            return None, revision
        return Entry(base64.b64decode(message.get("data", "")), revision), revision

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that is not there; gives its revision. Raises Conflict, MessageTooLarge, Transient."""
        try:
            return await self._put(key, value, 0)
        except Conflict:
            entry, revision = await self._get(key)
            if entry is not None or revision == 0:
                raise
            return await self._put(key, value, revision)

    def update(self, key: str, value: bytes, revision: int) -> Awaitable[int]:
        """Write a key that is at `revision`; gives the new one. Raises Conflict, MessageTooLarge, Transient."""
        return self._put(key, value, revision)

    async def remove(self, key: str, revision: int) -> None:
        """Remove a key that is at `revision`. Raises Conflict, Transient."""
        await self._put(key, b"", revision, {OPERATION: "DEL"})

    async def delete(self, key: str) -> None:
        """Remove a key, whatever it has become. Raises Transient."""
        with translated(self._bucket):
            await self._publish(key, b"", {OPERATION: "DEL"})

    async def purge(self, key: str) -> int:
        """Remove a key and every trace of it; gives how many there were. Raises Transient."""
        with translated(self._bucket):
            answer = await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": self._subject(key)})
        return int(answer["purged"])

    async def _put(self, key: str, value: bytes, revision: int, headers: Mapping[str, str] = NO_HEADERS) -> int:
        try:
            return await self._publish(key, value, {**headers, FENCE: str(revision)})
        except RAISED as exc:
            if isinstance(exc, ApiError) and exc.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(f"key {key} has another revision than {revision}", where=self._bucket) from exc
            raise inward(exc, self._bucket) from exc

    def _publish(self, key: str, value: bytes, headers: dict[str, str]) -> Awaitable[int]:
        # Over one message that is too large the server ends the whole connection. These headers are a few words.
        subject = self._subject(key)
        if len(value) + HEADER_OVERHEAD_BYTES > self._nc.max_payload:
            raise MessageTooLarge(f"{len(value)} bytes; NATS takes {self._nc.max_payload}", where=subject)
        return self._nc.asks.store(subject, value, headers)

    def _subject(self, key: str) -> str:
        subject = f"$KV.{self._bucket}.{key}"
        check_subject(subject)
        return subject
