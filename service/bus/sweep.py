"""Chunks that no object names → gone. For a bucket without a time to live; used by blobs.py.

Chunks are stored before the meta that names them, and removed after it: who is killed between the two leaves them.
Layout: NATS Object Store (ADR-20).
"""

import base64
import json
from datetime import datetime, timedelta
from typing import Any, Final

from nats.aio.client import Client

from service.bus.errors import NO_MESSAGE, ApiError, js_api, subject_counts, translated

# No object takes so long from its first chunk to its meta.
YOUNG: Final = timedelta(hours=1)
# A bucket with more is left alone: each of its metas would be read, one by one.
LISTED_LIMIT: Final = 100_000


async def sweep_chunks(nc: Client, bucket: str, *, now: datetime) -> int:
    """Remove them; gives how many sets there were. Raises Transient."""
    stream = f"OBJ_{bucket}"
    with translated(bucket):
        chunks = await subject_counts(nc, stream, f"$O.{bucket}.C.*")
        metas = await subject_counts(nc, stream, f"$O.{bucket}.M.*")
        # Where each set has its meta there is nothing to read: an empty object alone has a meta and no chunks.
        if len(chunks) <= len(metas) or max(len(chunks), len(metas)) >= LISTED_LIMIT:
            return 0
        named = {_nuid(await _last(nc, stream, subject)) for subject in metas}
        swept = 0
        for subject in chunks:
            if subject.rpartition(".")[2] in named:
                continue
            message = await _last(nc, stream, subject)
            if message is not None and now - datetime.fromisoformat(message["time"]) > YOUNG:
                await js_api(nc, f"STREAM.PURGE.{stream}", {"filter": subject})
                swept += 1
    return swept


async def _last(nc: Client, stream: str, subject: str) -> dict[str, Any] | None:
    try:
        answer = await js_api(nc, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as exc:
        if exc.err_code == NO_MESSAGE:
            return None
        raise
    message: dict[str, Any] = answer["message"]
    return message


def _nuid(meta: dict[str, Any] | None) -> str:
    try:
        return str(json.loads(base64.b64decode(meta.get("data", "")))["nuid"]) if meta is not None else ""
    except (ValueError, TypeError, KeyError):
        return ""
