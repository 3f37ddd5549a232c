"""Bytes → an object named by period and content, stored once. Layout: NATS Object Store (ADR-20).

Used by ingest and outbound. Put only if absent, never overwritten: two writers of one name left orphaned chunks
and stalled readers. Chunks without a meta age with the bucket's TTL; `sweep` is for a bucket without one.
"""

import asyncio
import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final

from nats.nuid import NUID

from service.bus.client import BusClient
from service.bus.errors import NO_MESSAGE, WRONG_LAST_SEQUENCE, ApiError, js_api, raise_api_error, translated
from service.bus.frames import FENCE, OutMessage
from service.bus.sweep import sweep_chunks
from service.bus.window import Window
from service.contract import Blob, blob_id
from service.errors import Permanent, Transient
from service.observe import step

CHUNK_LIMIT_BYTES: Final = 128 * 1024
# Hashing runs at about 1 GB/s: more than this would hold the loop for a quarter of a millisecond.
THREAD_FROM_BYTES: Final = 256 * 1024
KNOWN_LIMIT: Final = 10_000
SWEEP_EVERY: Final = timedelta(days=1)
PURGE_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Object:
    """A blob on its way: its id, the name of its chunks, and how many bytes they are of."""

    id: str
    nuid: str
    size: int


class BlobStore:
    """One bucket of blobs."""

    def __init__(self, nc: BusClient, bucket: str, max_payload: Callable[[], int]) -> None:
        self._nc = nc
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._max_payload = max_payload
        self._ids = NUID()
        self._window = Window(nc)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._swept: datetime | None = None

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
        """Store many, those that are new in two round trips: chunks, then what describes them. Raises Transient."""
        new = {blob.id: blob for blob in blobs if blob.id not in self._known}
        if not new:
            return
        with translated(self._bucket):
            for blob in list(new.values()):
                if len(blob.data) > CHUNK_LIMIT_BYTES and (await self._meta(blob.id))[0] is not None:
                    del new[blob.id]
                    self._remember(blob.id)
            objects = {id: _Object(id, self._ids.next().decode(), len(blob.data)) for id, blob in new.items()}
            chunks = (chunk for id, one in objects.items() for chunk in self._chunked(one.nuid, new[id].data))
            step("chunks.before")
            await self._put_chunks(chunks)
            step("chunks.done")
            await self._put_metas(list(objects.values()), now)
        for id in new:
            self._remember(id)

    async def put_pieces(self, pieces: AsyncIterator[bytes], *, now: datetime) -> str:
        """Store what comes in pieces, of which none is kept; gives the blobId, which only the last one tells.

        Raises Transient, and what `pieces` raises: nothing is stored then.
        """
        nuid, digest, size = self._ids.next().decode(), hashlib.sha256(), 0
        try:
            with translated(self._bucket):
                rest = b""
                # All chunks but the last have one size.
                chunk = self._chunk_size()
                async for piece in pieces:
                    await asyncio.to_thread(digest.update, piece)
                    size += len(piece)
                    data = rest + piece
                    whole = len(data) - len(data) % chunk
                    await self._put_chunks(self._chunked(nuid, data[:whole]))
                    rest = data[whole:]
                await self._put_chunks(self._chunked(nuid, rest))
        except BaseException:
            # Where this cannot be done either they age with the bucket.
            with suppress(Transient, TimeoutError):
                async with asyncio.timeout(PURGE_LIMIT_S):
                    with translated(self._bucket):
                        await self._purge(nuid)
            raise
        made = _Object(blob_id(digest.digest(), now), nuid, size)
        with translated(self._bucket):
            if (await self._meta(made.id))[0] is None:
                # Not undone where its answer is lost: what describes it may stand.
                await self._put_metas([made], now)
            else:
                await self._purge(nuid)
        self._remember(made.id)
        return made.id

    def _chunked(self, nuid: str, data: bytes) -> Iterator[OutMessage]:
        size = self._chunk_size()
        for offset in range(0, len(data), size):
            yield OutMessage(self._chunk_subject(nuid), data[offset : offset + size], {})

    async def _put_chunks(self, chunks: Iterable[OutMessage]) -> None:
        for answer in await self._window.publish(chunks):
            raise_api_error(answer)

    async def _put_metas(self, objects: Sequence[_Object], now: datetime) -> None:
        """What describes them, once their chunks are there: a meta must never stand without all of its chunks."""
        metas = [self._made_meta(one, now, fence=0) for one in objects]
        for one, answer in zip(objects, await self._window.publish(metas), strict=True):
            try:
                raise_api_error(answer)
            except ApiError as exc:
                if exc.err_code not in WRONG_LAST_SEQUENCE:
                    raise
                await self._settle(one, now)

    async def _settle(self, one: _Object, now: datetime) -> None:
        """The name is taken: by the same content, which serves, or by the mark of what was deleted."""
        meta, revision = await self._meta(one.id)
        if meta is None:
            (answer,) = await self._window.publish([self._made_meta(one, now, fence=revision)])
            try:
                raise_api_error(answer)
                return
            except ApiError as exc:
                # Another writer was first with the same content: its object serves, our chunks go.
                if exc.err_code not in WRONG_LAST_SEQUENCE:
                    raise
        await self._purge(one.nuid)

    async def _purge(self, nuid: str) -> None:
        await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": self._chunk_subject(nuid)})

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
        return await self.size(blob_id) is not None

    async def size(self, blob_id: str) -> int | None:
        """How many bytes a blob has; None where there is none. Raises Transient."""
        with translated(self._bucket):
            meta, _ = await self._meta(blob_id)
        size = None if meta is None else meta.get("size")
        return size if isinstance(size, int) and size >= 0 else None

    async def sizes(self, blob_ids: Sequence[str]) -> dict[str, int]:
        """The bytes of those that are there, before any of them is read. Raises Transient."""
        found = {id: await self.size(id) for id in blob_ids}
        return {id: size for id, size in found.items() if size is not None}

    async def delete(self, blob_id: str) -> None:
        """Remove a blob's chunks and meta. Raises Transient."""
        with translated(self._bucket):
            meta, _ = await self._meta(blob_id)
            if meta is None:
                return
            self._known.pop(blob_id, None)
            for subject in (self._meta_subject(blob_id), self._chunk_subject(meta["nuid"])):
                await js_api(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": subject})

    async def sweep(self, *, now: datetime) -> int:
        """Once a day, remove chunks that no object names; gives how many sets there were. Raises Transient."""
        if self._swept is not None and now - self._swept < SWEEP_EVERY:
            return 0
        self._swept = now
        return await sweep_chunks(self._nc, self._bucket, now=now)

    def forget(self) -> None:
        """Believe nothing to be there any more: the server was away, and may have come back from an older state."""
        self._known.clear()

    def _made_meta(self, one: _Object, now: datetime, *, fence: int) -> OutMessage:
        meta = {
            "name": one.id,
            "bucket": self._bucket,
            "nuid": one.nuid,
            "size": one.size,
            "mtime": now.isoformat(),
            "chunks": -(-one.size // self._chunk_size()),
            "digest": "SHA-256=" + base64.urlsafe_b64encode(bytes.fromhex(one.id.rpartition("-")[2])).decode(),
            "options": {"max_chunk_size": self._chunk_size()},
        }
        return OutMessage(self._meta_subject(one.id), json.dumps(meta).encode(), {FENCE: str(fence)})

    def _chunk_size(self) -> int:
        return min(CHUNK_LIMIT_BYTES, self._max_payload() - 1024)

    async def _chunks(self, meta: dict[str, Any]) -> bytes:
        subject = self._chunk_subject(meta["nuid"])
        # Its buffer becomes the result: a bytearray would be copied.
        data = BytesIO()
        seq = 1
        for _ in range(int(meta["chunks"])):
            request = {"seq": seq, "next_by_subj": subject}
            try:
                answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
            except ApiError as exc:
                if exc.err_code == NO_MESSAGE:
                    break  # it is being deleted, or whoever may write here wrote what describes it alone
                raise
            message = answer["message"]
            data.write(base64.b64decode(message.get("data", "")))
            seq = int(message["seq"]) + 1
            if data.tell() > int(meta["size"]):
                break  # what describes it says less than there is
        if data.tell() != int(meta["size"]):
            raise Permanent("a blob is incomplete", where=str(meta.get("name"))[:80], remedy="store it again")
        return data.getvalue()

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

    def _remember(self, name: str) -> None:
        self._known[name] = None
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def _meta_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"
