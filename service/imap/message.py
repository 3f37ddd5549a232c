"""What a FETCH says of a message: the row of a survey, its bodies, and what of the answer is neither. Pure.

Used by session.py and protocol.py for every message there is. RFC 9051 7.5.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.imap.flagsets import FlagSets
from service.imap.grammar import FetchData, Response, parse_date, parse_number, parse_uid
from service.imap.identity import NO_LABELS, Labels


@dataclass(frozen=True, slots=True)
class SurveyedMessage:
    """What the server says of a message without giving it."""

    uid: int
    size: int
    flags: frozenset[str]
    internal_date: datetime | None
    email_id: str = ""
    thread_id: str = ""
    labels: Labels = NO_LABELS


def surveyed_in(data: FetchData, first: int, last: int | None, flags: FlagSets) -> SurveyedMessage | None:
    """Without identity and labels; None for a UID outside of first to last, and without a size. Raises PeerError."""
    items = data.items
    uid, size = parse_uid(items.get("UID")), parse_number(items.get("RFC822.SIZE"))
    if uid is None or size is None or uid < first or (last is not None and uid > last):
        return None
    return SurveyedMessage(uid, size, flags.read(items.get("FLAGS")), parse_date(items.get("INTERNALDATE")))


def bodies_in(data: FetchData) -> list[bytes]:
    """What a response gives of a message itself (RFC 9051 6.4.5)."""
    return [value for name, value in data.items.items() if name.startswith("BODY[") and isinstance(value, bytes)]


def weight_of(pieces: Sequence[bytes], response: Response) -> int:
    """Bytes of a response, but for what it gives of a message itself."""
    size = 0
    for piece in pieces:
        size += len(piece)
    if len(pieces) > 1 and isinstance(response, FetchData):
        for body in bodies_in(response):
            size -= len(body)
    return size
