"""Bytes → an object named by period and content, stored once. Layout: NATS Object Store (ADR-20).

Used by ingest and outbound. Put only if absent, never overwritten: two writers of one name left orphaned chunks
and stalled readers. Chunks without a meta age with the bucket's TTL.
"""

import asyncio
import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.nuid import NUID

from service.bus.batch import Batches
from service.bus.errors import (
    NO_MESSAGE,
    REQUEST_TIMEOUT_S,
    WRONG_LAST_SEQUENCE,
    ApiError,
    js_api,
    raise_api_error,
    translated,
)
from service.bus.frames import FENCE, OutMessage
from service.contract import Blob, blob_id
from service.errors import Permanent, verdict_of
from service.observe import log, step
from service.tasks import TaskGroup

CHUNK_LIMIT_BYTES: Final = 128 * 1024
CHUNKS_AT_ONCE: Final = 8
# A blob is a chunk and a meta, a batch has 1,000 messages at most; its bytes are copied once more on the way.
BATCH_LIMIT_BLOBS: Final = 500
BATCH_LIMIT_BYTES: Final = 4 * 1024 * 1024
BLOBS_AT_ONCE: Final = 8
# Hashing runs at about 1 GB/s: more than this would hold the loop for a quarter of a millisecond.
THREAD_FROM_BYTES: Final = 256 * 1024
KNOWN_LIMIT: Final = 10_000


class BlobStore:
    """One bucket of blobs."""

    def __init__(self, nc: Client, bucket: str, max_payload: Callable[[], int]) -> None:
        self._nc = nc
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._max_payload = max_payload
        self._ids = NUID()
        self._batches = Batches(nc, self._stream)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def put(self, data: bytes, *, now: datetime) -> str:
        """Store bytes once within a period; gives the blobId. Raises Transient."""
        if len(data) < THREAD_FROM_BYTES:
            digest = hashlib.sha256(data).digest()
        else:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        blob = Blob(blob_id(digest, now), data)
        await self.put_all([blob], now=now)
        return blob.id

    async def put_all(self, blobs: Sequence[Blob], *, now: datetime) -> None:
        """Store many, the small ones together in one round trip. Raises Transient."""
        new = {blob.id: blob for blob in blobs if blob.id not in self._known}
        small = [blob for blob in new.values() if len(blob.data) <= self._chunk_size()]
        large = [blob for blob in new.values() if len(blob.data) > self._chunk_size()]
        for together in _cut(small):
            if len(together) == 1 or not await self._store_together(together, now):
                await self._store_each(together, now)
        await self._store_each(large, now)
        for id in new:
            self._remember(id)

    async def _store_together(self, blobs: Sequence[Blob], now: datetime) -> bool:
        """Chunks and metas of blobs that are all new, all or none; False where one is there or the server refuses."""
        messages: list[OutMessage] = []
        for blob in blobs:
            nuid = self._ids.next().decode()
            meta = self._made_meta(blob, nuid, now, chunks=1 if blob.data else 0)
            if blob.data:
                messages.append(OutMessage(self._chunk_subject(nuid), blob.data, {}))
            messages.append(OutMessage(self._meta_subject(blob.id), meta, {FENCE: "0"}))
        with translated(self._bucket):
            try:
                await self._batches.publish(messages)
            except ApiError as exc:
                log.debug("blobs_one_by_one", bucket=self._bucket, error=exc.description)
                return False
        return True

    async def _store_each(self, blobs: Sequence[Blob], now: datetime) -> None:
        places = asyncio.Semaphore(BLOBS_AT_ONCE)

        async def store(blob: Blob) -> None:
            async with places:
                with translated(self._bucket):
                    meta, revision = await self._meta(blob.id)
                    if meta is None:
                        await self._store(blob, now, revision)

        try:
            async with TaskGroup() as group:
                for blob in blobs:
                    group.create_task(store(blob), name="blob")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed

    async def get(self, blob_id: str) -> bytes:
        """The bytes of a blob, checked against its name. Raises Permanent where there is none, Transient."""
        with translated(self._bucket):
            meta, _ = await self._meta(blob_id)
            if meta is None:
                raise Permanent(f"no blob {blob_id[:80]}", where=self._bucket, remedy="it expired, or never was")
            try:
                data = await self._chunks(meta)
            except (KeyError, TypeError, ValueError) as exc:
                raise Permanent("a blob without its facts", where=blob_id[:80], remedy="store it again") from exc
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if digest != blob_id.rpartition("-")[2]:
            raise Permanent("a blob's content does not match its name", where=blob_id[:80], remedy="store it again")
        return data

    async def exists(self, blob_id: str) -> bool:
        """Whether a blob is there. Raises Transient."""
        with translated(self._bucket):
            meta, _ = await self._meta(blob_id)
            return meta is not None

    async def delete(self, blob_id: str) -> None:
        """Remove a blob's chunks and meta. Raises Transient."""
        with translated(self._bucket):
            meta, _ = await self._meta(blob_id)
            if meta is None:
                return
            self._known.pop(blob_id, None)
            for subject in (self._meta_subject(blob_id), self._chunk_subject(meta["nuid"])):
                await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": subject})

    def forget(self) -> None:
        """Believe nothing to be there any more: the server was away, and may have come back from an older state."""
        self._known.clear()

    async def _store(self, blob: Blob, now: datetime, revision: int) -> None:
        nuid = self._ids.next().decode()
        size = self._chunk_size()
        offsets = range(0, len(blob.data), size)
        view = memoryview(blob.data)
        step("chunks.before")
        # Chunks must stand in order: one connection, published one after the other, acknowledged in a window.
        for first in range(0, len(offsets), CHUNKS_AT_ONCE):
            try:
                async with TaskGroup() as group:
                    for offset in offsets[first : first + CHUNKS_AT_ONCE]:
                        chunk = bytes(view[offset : offset + size])
                        group.create_task(self._publish(self._chunk_subject(nuid), chunk, {}), name="chunk")
            except ExceptionGroup as failed:
                raise verdict_of(failed) from failed
        step("chunks.done")
        meta = self._made_meta(blob, nuid, now, chunks=len(offsets))
        try:
            await self._publish(self._meta_subject(blob.id), meta, {FENCE: str(revision)})
        except ApiError as exc:
            # Another writer was first with the same content: its object serves, our chunks go.
            if exc.err_code not in WRONG_LAST_SEQUENCE:
                raise
            await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": self._chunk_subject(nuid)})

    def _made_meta(self, blob: Blob, nuid: str, now: datetime, *, chunks: int) -> bytes:
        meta = {
            "name": blob.id,
            "bucket": self._bucket,
            "nuid": nuid,
            "size": len(blob.data),
            "mtime": now.isoformat(),
            "chunks": chunks,
            "digest": "SHA-256=" + base64.urlsafe_b64encode(bytes.fromhex(blob.id.rpartition("-")[2])).decode(),
            "options": {"max_chunk_size": self._chunk_size()},
        }
        return json.dumps(meta).encode()

    def _chunk_size(self) -> int:
        return min(CHUNK_LIMIT_BYTES, self._max_payload() - 1024)

    async def _chunks(self, meta: dict[str, Any]) -> bytes:
        subject = self._chunk_subject(meta["nuid"])
        data = bytearray()
        seq = 1
        for _ in range(int(meta["chunks"])):
            request = {"seq": seq, "next_by_subj": subject}
            answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
            message = answer["message"]
            data += base64.b64decode(message.get("data", ""))
            seq = int(message["seq"]) + 1
        if len(data) != int(meta["size"]):
            raise Permanent("a blob is incomplete", where=str(meta.get("name"))[:80], remedy="store it again")
        return bytes(data)

    async def _meta(self, name: str) -> tuple[dict[str, Any] | None, int]:
        """What describes an object, None where there is none; and the sequence that a new one must come after."""
        try:
            request = {"last_by_subj": self._meta_subject(name)}
            answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
        except ApiError as exc:
            if exc.err_code == NO_MESSAGE:
                return None, 0
            raise
        message = answer["message"]
        try:
            meta = json.loads(base64.b64decode(message["data"]))
        except ValueError:
            meta = None
        # What another client deleted leaves its meta behind, with this mark; what is none is nothing to go by.
        there = isinstance(meta, dict) and not meta.get("deleted")
        return meta if there else None, int(message["seq"])

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        reply = await self._nc.request(subject, payload, headers=headers or None, timeout=REQUEST_TIMEOUT_S)
        raise_api_error(json.loads(reply.data))

    def _remember(self, name: str) -> None:
        self._known[name] = None
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def _meta_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


def _cut(blobs: Sequence[Blob]) -> Iterator[list[Blob]]:
    """Pieces that one batch can take."""
    piece: list[Blob] = []
    size = 0
    for blob in blobs:
        if piece and (len(piece) >= BATCH_LIMIT_BLOBS or size + len(blob.data) > BATCH_LIMIT_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(blob)
        size += len(blob.data)
    if piece:
        yield piece
