"""What is known → what to do next with a mailbox. Pure: every decision of ingest that time or luck could confuse.

Used by publish.py (resume, settle) and mailbox.py (pages, epochs). Rules: docs/decisions/0001-log-is-the-cursor.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from msgspec.structs import replace

from service.contract import ResetReason, Sync, fingerprint
from service.ingest.cursor import Copy, Cursor
from service.ingest.marks import MARK_BYTES, whole_mark
from service.ingest.notes import Line
from service.ingest.source import Epoch
from service.ingest.surveyed import Surveyed

# One survey's reply holds at most this many messages: about 200 bytes each.
SURVEY_LIMIT_UIDS: Final = 5_000
# RFC 9051 2.3.1.1: they have 32 bits.
UIDS: Final = 2**32
# What a source gives at the most where nobody could know how many there are.
SURVEY_LIMIT_ROWS: Final = 40_000
# A page is read, parsed and committed as one: it is what a mailbox holds in memory, twice (one read, one committed).
PAGE_LIMIT_MESSAGES: Final = 400
PAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024
# The first page of many is a quarter, the next a half: all stages have work sooner.
PAGE_FIRST_SHARE: Final = 4
# Clocks of mail servers are wrong by minutes: mail of this time before a starting line is known by its marks.
NEAR_S: Final = 3600.0
# Their marks stand in the header of the reset: 26 bytes each at the most.
NEAR_LIMIT: Final = 256
# The server compares, we must not use what it may have forgotten: a fence read longer ago is read again.
FENCE_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class TailView:
    """The end of a mailbox in the log.

    `seq`: of its last message, whoever published it: what the server compares a fence with. `at`: of the last one
    that carries a cursor; lower only where somebody else published there. Without any, 0 and None. `dead`: how far
    before it those of its commit stand that have a copy in the dead letters. `id`: its `ce-id`.
    """

    seq: int
    at: int
    cursor: Cursor | None
    dead: tuple[int, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class StreamView:
    """The log as a whole."""

    created: datetime
    first_seq: int
    last_seq: int


class CopySeq(Enum):
    """What stands in the log at the copy's sequence."""

    OURS = auto()
    DELETED = auto()
    FOREIGN = auto()
    UNKNOWN = auto()


class Why(Enum):
    """How a mailbox's position was found."""

    NEW = auto()
    TAIL = auto()
    COPY = auto()
    ROLLED_BACK = auto()
    OTHER_STREAM = auto()


@dataclass(frozen=True, slots=True)
class Former:
    """What a mailbox may have been called until now; its known state is saved, and named by the cursor.

    `initial`: the rule for what of it is not recognised; `proved`: the server itself says that it is the same; `seq`:
    where in the log it stood.
    """

    mailbox: str
    cursor: Cursor
    initial: datetime | str
    proved: bool
    seq: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where to go on. `cursor` is None where the `initial` rule decides; `again` where the start is announced anew."""

    why: Why
    fence: int
    cursor: Cursor | None
    again: bool = False
    # Where in the log the cursor stands.
    seq: int = 0
    # A snapshot of the known state that the log names although the cursor has a newer one.
    older: str = ""


def needs_lookup(tail: TailView | None, copy: Copy | None, stream: StreamView) -> bool:
    """Whether `resume` must know what stands at the copy's sequence."""
    if copy is None or copy.stream_created != stream.created:
        return False
    if tail is not None and tail.at >= copy.seq:
        return False
    return stream.first_seq <= copy.seq <= stream.last_seq


def resume(tail: TailView | None, copy: Copy | None, stream: StreamView, at_copy: CopySeq) -> Position:
    """Where a mailbox goes on, from the log's tail and the copy in KV. The fence is always the tail really there."""
    fence = tail.seq if tail else 0
    at, cursor = (tail.at, tail.cursor) if tail else (0, None)
    known = copy if copy is not None and copy.stream_created == stream.created else None
    if known is None or (cursor is not None and at >= known.seq):
        if cursor is not None:
            newest = _newest(at, cursor, known)
            older = cursor.state.id if cursor.state is not None and cursor.state != newest.state else ""
            return Position(Why.TAIL, fence, newest, seq=at, older=older)
        return Position(Why.NEW if copy is None else Why.OTHER_STREAM, fence, None)
    # Below the stream's first: retention. Deleted: a purge or an erasure. In both the copy knows best.
    if known.seq < stream.first_seq or at_copy is CopySeq.DELETED:
        return Position(Why.COPY, fence, known.cursor, seq=known.seq)
    if known.seq <= stream.last_seq and at_copy is CopySeq.OURS:
        return Position(Why.COPY, fence, known.cursor, seq=known.seq)
    # Beyond the stream's last, or another's message stands there: the log lost what the copy remembers.
    if cursor is not None:
        return Position(Why.ROLLED_BACK, fence, _rolled_back(cursor, known), seq=at)
    return Position(Why.ROLLED_BACK, fence, _rolled_back(known.start, known), again=True)


def _newest(at: int, tail: Cursor, copy: Copy | None) -> Cursor:
    """The tail's cursor, or the copy's where that says of the same place more than a commit could."""
    if copy is None or copy.seq != at or not same_place(copy.cursor, tail):
        return tail
    return copy.cursor


def same_place(one: Cursor, other: Cursor) -> bool:
    """Whether two cursors are of one commit: a copy may name a newer snapshot, and tell of a rollback."""
    return replace(one, state=None, rollbacks=0) == replace(other, state=None, rollbacks=0)


def _rolled_back(cursor: Cursor, copy: Copy) -> Cursor:
    """What is counted from here on was counted before, and meant something else."""
    return replace(cursor, rollbacks=max(cursor.rollbacks, copy.cursor.rollbacks) + 1)


def is_foreign(tail: TailView, known_seq: int) -> bool:
    """Whether somebody else published the mailbox's last message, after `known_seq`.

    Up to there the end was mailbus's: where it carries no cursor now, the message that did was removed by hand.
    """
    return tail.at < tail.seq and tail.seq > known_seq


class Settled(Enum):
    """What became of a commit whose answer was a refusal, or never came."""

    LANDED = auto()
    NOT_THERE = auto()
    MOVED = auto()


def settle(tail: TailView | None, fence: int, mine: Cursor, id: str) -> Settled:
    """Compare the log's tail with what was to be committed on top of `fence`: a cursor, on the event with this `ce-id`.

    The cursor alone says too little: a stand-in's events and IMAP's may count on from one place in the same way.
    """
    if tail is None or tail.seq < fence:
        return Settled.NOT_THERE if fence == 0 else Settled.MOVED
    # Above the fence nobody has announced anything: it is as it was, or a stranger published.
    if tail.at <= fence:
        return Settled.NOT_THERE
    return Settled.LANDED if (tail.cursor, tail.id) == (mine, id) else Settled.MOVED


def is_other(writer: str, mine: str) -> bool:
    """Whether `instance/boot` names another instance; an older boot of the same one is gone for certain."""
    return writer.rpartition("/")[0] != mine.rpartition("/")[0]


def epoch_break(cursor: Cursor, source: str, epoch: Epoch, at_last: Sequence[Surveyed]) -> ResetReason | None:
    """Why the cursor's epoch is over, if it is. `at_last`: what stands at the cursor's last UID now."""
    if cursor.source != source:
        return ResetReason.SOURCE
    if cursor.uidvalidity != epoch.uidvalidity:
        return ResetReason.UIDVALIDITY
    # RFC 8474 4: a mailbox keeps its MAILBOXID, and has no other's. Two that swapped names may have one UIDVALIDITY.
    if cursor.box and epoch.mailbox_id and cursor.box != epoch.mailbox_id:
        return ResetReason.SOURCE
    for message in at_last:
        # Another message under a UID that we know: another mailbox behind the same name and number. A source that
        # numbers messages itself knows whose number it is, also where the message is called otherwise by now.
        if (
            message.uid == cursor.last
            and not message.identity
            and cursor.fingerprint not in ("", fingerprint_of(message))
        ):
            return ResetReason.SOURCE
    return None


class Recalled(Enum):
    """How much of the known state was there to go on from. UNKNOWN: an older version kept none."""

    WHOLE = auto()
    PARTIAL = auto()
    UNKNOWN = auto()


class Look(Enum):
    """What is to be asked of known messages: nothing, what changed since a modseq, or everything."""

    NOTHING = auto()
    SINCE = auto()
    ALL = auto()


def first_look(cursor: Cursor, epoch: Epoch, sync: Sync, recalled: Recalled) -> Look:
    """What to ask at a connect."""
    if recalled is not Recalled.WHOLE or sync not in {Sync.QRESYNC, Sync.CONDSTORE}:
        return Look.ALL
    # RFC 7162 3.1.2.2: it never goes back; where it does, it says nothing about what we have seen.
    if not cursor.modseq or epoch.modseq < cursor.modseq:
        return Look.ALL
    # Only with QRESYNC an expunge raises it.
    return Look.NOTHING if sync is Sync.QRESYNC and epoch.modseq == cursor.modseq else Look.SINCE


def fingerprint_of(message: Surveyed) -> str:
    """The fingerprint of a surveyed message: of its identity where it has one, which says more than its size."""
    if message.identity:
        return message.identity[: 2 * MARK_BYTES]
    if message.unmarked:
        return ""
    return fingerprint(message.size, message.internal_date)


def mark_of(message: Surveyed) -> str:
    """The mark of a surveyed message: of its content where that alone tells it from others."""
    if message.identity or message.unmarked:
        content = message.content[: 2 * MARK_BYTES]
        return f"{content}:{message.print}" if message.print else content
    return whole_mark(fingerprint_of(message), message.email_id)


def runs_backwards(cursor: Cursor, epoch: Epoch) -> bool:
    """Whether new messages will get UIDs that were given already (RFC 9051 2.3.1.1 forbids it)."""
    return cursor.source != "" and epoch.uidnext_told and epoch.uidnext <= cursor.last


def drawn(seen: Sequence[Surveyed], floor: datetime) -> Line:
    """The starting line by date: the marks of what arrived just before it and is not announced.

    Of more than NEAR_LIMIT messages the newest: then the line is where the oldest of these arrived.
    """
    near = sorted(
        (message for message in seen if message.internal_date is not None and message.internal_date >= floor),
        key=lambda message: message.internal_date or floor,
    )
    kept = near[-NEAR_LIMIT:]
    if len(near) > len(kept):
        # Of those of the oldest kept second some may be missing: they are below the line.
        floor = (kept[0].internal_date or floor) + timedelta(seconds=1)
        kept = [message for message in kept if message.internal_date is not None and message.internal_date >= floor]
    return Line(floor, tuple(mark_of(message) for message in kept))


def announced(message: Surveyed, cursor: Cursor) -> bool:
    """Whether the starting line lets a message through, and no other mailbox announces it."""
    if message.elsewhere:
        return False
    if message.uid > cursor.line:
        return True
    return cursor.since is not None and message.internal_date is not None and message.internal_date >= cursor.since


def widened(window: int, found: int, wanted: int) -> int:
    """How many UIDs to ask for next, so that about `wanted` messages have them, after so many had those of `window`.

    UIDs may be times: nothing says how far apart they lie but those that were found.
    """
    if found > wanted:
        return max(wanted, window * wanted // found)
    return min(4 * window, UIDS) if 4 * found < wanted else window


def beyond(found: Sequence[Surveyed], last: int) -> int:
    """Where the window after one up to `last` begins: what was given of it may not be all that it has."""
    return found[-1].uid + 1 if len(found) >= SURVEY_LIMIT_ROWS else last + 1


def pages(
    messages: Sequence[Surveyed], limit_bytes: int, alone: frozenset[int], *, begun: bool = False
) -> Iterator[list[Surveyed]]:
    """Cut surveyed messages into pages of bounded count and size, in UID order. `begun`: others are under way.

    A message over `limit_bytes` counts as its header, which is all that will be read of it. A UID in `alone`
    gets a page of its own: it was in hand when the connection broke.
    """
    page: list[Surveyed] = []
    size = 0
    share = 1 if begun else PAGE_FIRST_SHARE
    for message in messages:
        costs = message.size if message.size <= limit_bytes else 0
        single = message.uid in alone
        is_full = len(page) >= PAGE_LIMIT_MESSAGES // share or size + costs > PAGE_LIMIT_BYTES // share
        if page and (single or is_full):
            yield page
            page, size = [], 0
            share = max(1, share // 2)
        page.append(message)
        size += costs
        if single:
            yield page
            page, size = [], 0
    if page:
        yield page
