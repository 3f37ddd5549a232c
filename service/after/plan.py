"""How far the rule of an account is carried out in a mailbox, and what comes next. Pure.

The record stands in the bucket `mail-after`, one a mailbox. What is pending stands nowhere but in the log: the events
beyond the record. Used by work.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Annotated, Final

import msgspec
from msgspec.structs import replace

from service.contract import AFTER_HEADER, FINGERPRINT_CHARS, NUMBERS_FROM, STATE_HEADER, mailbox_hash, place_of

VERSION: Final = 1
# Messages that were refused and are tried again: as many as an operator would look at.
LEFT_LIMIT: Final = 100

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Left(msgspec.Struct, frozen=True):
    """A message that the server refused so many times, and when it is tried again. `seq`: where its event stands;
    `mark`: as Item has it."""

    uid: int
    uidvalidity: int
    tries: int
    at: Moment
    seq: int = 0
    mark: str = ""


class Copying(msgspec.Struct, frozen=True):
    """Messages that are being copied, to be expunged then: where their copies are to be looked for.

    `first`: what the next UID of the other mailbox was before, in its epoch `into`.
    """

    uids: list[int]
    uidvalidity: int
    first: int
    into: int


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """All events up to `seq` of a stream are dealt with; `id` is that event's ce-id, `mark` the rule's.

    `reset`: where the event stands that began the epoch of all that is named here. `writer`: who is at it, or was.
    """

    stream_created: Moment
    seq: int
    id: str = ""
    mark: str = ""
    left: list[Left] = []
    copying: Copying | None = None
    writer: str = ""
    reset: int = 0
    v: int = VERSION


_RECORD: Final = msgspec.json.Decoder(Record)


def dump_record(record: Record) -> bytes:
    """The value of the record's key."""
    return msgspec.json.encode(record)


def load_record(value: bytes) -> Record | None:
    """The value of the record's key; None where it cannot be read: then all that the log holds is looked at again."""
    try:
        return _RECORD.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return None


class AtRecord(Enum):
    """What stands in the log at a record's sequence."""

    OURS = auto()
    GONE = auto()
    OTHER = auto()


def started(record: Record | None, *, created: datetime, last_seq: int, at: AtRecord, mark: str) -> Record:
    """Where to go on. Without a record, and where the log forgot what the record remembers, from the log's beginning:
    what was done is found done."""
    if record is None or record.stream_created != created or record.seq > last_seq or at is AtRecord.OTHER:
        return Record(created, 0, mark=mark)
    if record.mark != mark:
        # What was pending under another rule is not this one's.
        return replace(record, mark=mark, left=[], copying=None)
    return record


def of_epoch(record: Record, reset: int, id: str) -> Record:
    """The record once the mailbox's last `reset` stands at a sequence: what was named before it is void.

    Also where the UIDVALIDITY is the same, as another server or user may have it: only the log tells those apart.
    """
    if record.reset == reset:
        return record
    record = replace(record, reset=reset, left=[], copying=None)
    return replace(record, seq=reset, id=id) if reset > record.seq else record


@dataclass(frozen=True, slots=True)
class Item:
    """A message that the event at `seq` names. `mark`: its fingerprint, as it was announced; empty where that is not
    known, or of another way than IMAP."""

    uid: int
    uidvalidity: int
    seq: int
    mark: str = ""


def item_of(mailbox: str, mark: str, headers: dict[str, str], seq: int) -> Item | None:
    """The message that the rule `mark` is about; None where the event was published under another rule, or none."""
    if headers.get(AFTER_HEADER) != mark:
        return None
    place = place_of(headers.get("ce-subject", ""))
    if place is None or not place.uid or place.mailbox_hash != mailbox_hash(mailbox):
        return None
    # `<uid> <mark> <keyword>…`, of which the first part is what IMAP alone may compare with.
    noted = headers.get(STATE_HEADER, "").split(" ")
    told = noted[1].partition(":")[0] if len(noted) > 1 and place.uid < NUMBERS_FROM else ""
    return Item(place.uid, place.uidvalidity, seq, told if len(told) == FINGERPRINT_CHARS else "")


@dataclass(frozen=True, slots=True)
class RefusedPace:
    """When a message that was refused is tried again, and how often in all."""

    first_s: float = 60.0
    factor: float = 4.0
    max_s: float = 4 * 3600.0
    tries: int = 6

    def next(self, item: Item, tries: int, now: datetime) -> Left | None:
        """After `tries` refusals; None: it is given up."""
        if tries >= self.tries:
            return None
        pause_s = min(self.max_s, self.first_s * self.factor ** (tries - 1))
        at = now + timedelta(seconds=pause_s)
        return Left(item.uid, item.uidvalidity, tries, at, item.seq, item.mark)


def next_left(left: Iterable[Left]) -> Left | None:
    """The one that is tried first; None where there is none."""
    return min(left, key=lambda one: one.at, default=None)


def waits_s(left: Left | None, now: datetime) -> float | None:
    """The seconds until it is tried, 0 where it is time; None where nothing waits."""
    return None if left is None else max(0.0, (left.at - now).total_seconds())
