"""Bytes beside events, and the name that they have in the store. Plain data."""

from datetime import datetime

import msgspec


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """Bytes with the id under which they are stored."""

    id: str
    data: bytes


def blob_id(digest: bytes, now: datetime) -> str:
    """`<YYYYMM>-<SHA-256 hex>`: equal content is stored once within a period, and outlives every event of it."""
    return f"{now:%Y%m}-{digest.hex()}"
