"""What an erasure leaves of a mailbox's events ⇄ the value of a key in `mail-cursors`. Pure.

The known state is the sum of the log, so what an erased event changed there must stay: its place, its kind, a hash and
flags, nothing of a mail. Written by the room erase, read by memory.py.
"""

import hashlib
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final

import msgspec

from service.errors import Permanent

# Of one mailbox: 15,000 events, in half of what a message holds by default.
LIMIT_BYTES: Final = 512 * 1024
UNPACKED_LIMIT_BYTES: Final = 64 * 1024 * 1024


class Erased(msgspec.Struct, frozen=True, array_like=True):
    """An event that is not in the log any more: what it was (`ce-id`), and what its `Mail-State` said."""

    seq: int
    kind: str
    id: str
    state: str


class _Kept(msgspec.Struct, frozen=True):
    stream_created: Annotated[datetime, msgspec.Meta(tz=True)]
    events: list[Erased]


_DECODER: Final = msgspec.msgpack.Decoder(_Kept)


def erased_key(filter_subject: str) -> str:
    """The key of a mailbox, by the subject of all of its events."""
    return f"_erased.{hashlib.sha256(filter_subject.encode()).hexdigest()[:32]}"


def dump_erased(events: Iterable[Erased], *, stream_created: datetime, where: str) -> bytes:
    """The key's value. Raises Permanent where it is too much."""
    kept = _Kept(stream_created, sorted(events, key=lambda one: one.seq))
    value = zlib.compress(msgspec.msgpack.encode(kept))
    if len(value) > LIMIT_BYTES:
        raise Permanent(
            f"{len(kept.events)} erased events of one mailbox are more than can be kept in mind",
            where=where,
            remedy="erase less of it; what its log forgets (streams.in.max_age) makes room",
        )
    return value


def load_erased(value: bytes, *, stream_created: datetime) -> list[Erased]:
    """The key's value → events in their order; none where it is of another stream, or cannot be read."""
    try:
        kept = _DECODER.decode(zlib.decompressobj().decompress(value, UNPACKED_LIMIT_BYTES))
    except (zlib.error, msgspec.MsgspecError, UnicodeError):
        return []
    return kept.events if kept.stream_created == stream_created else []
