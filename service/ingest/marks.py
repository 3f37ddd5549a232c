"""Marks: by what a message is recognised where its UID has lost its meaning. Pure.

A mark is six bytes: a fingerprint of size and INTERNALDATE (RFC 9051 2.3.1.1 says that neither ever changes); and where
the server has one, six more of EMAILID (RFC 8474 5.1), which another server does not have. Of a message of POP3 it is a
fingerprint of its content, and its print (prints.py) stands in the place of EMAILID: one of the two is enough. Its note
has its identity in the maildrop, too, which seen.py keeps.
Used by memory.py and epochs.py.
"""

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from service.ingest.known import Known
from service.ingest.seen import IDENTITY_BYTES

MARK_BYTES: Final = 6
NO_MARK: Final = bytes(MARK_BYTES)


def whole_mark(fingerprint: str, email_id: str) -> str:
    """A mark as text: the fingerprint's hex digits and, after a colon, those of the identity where there is one."""
    return f"{fingerprint}:{hashlib.sha256(email_id.encode()).hexdigest()[:12]}" if email_id else fingerprint


def packed_mark(mark: str) -> bytes:
    """The fingerprint of a mark as bytes; NO_MARK for what is none."""
    return packed(mark.partition(":")[0])


def packed_id(mark: str) -> bytes:
    """The identity of a mark as bytes; NO_MARK where it has none."""
    return packed(_second(mark))


def with_identity(mark: str, identity: str) -> str:
    """A mark as text, with 32 hex digits that name the message in its maildrop where it has any."""
    return f"{mark}:{identity}" if identity else mark


def identity_in(mark: str) -> bytes:
    """The identity of a message in its maildrop; empty where the mark has none."""
    digits = _second(mark)
    try:
        return bytes.fromhex(digits) if len(digits) == 2 * IDENTITY_BYTES else b""
    except ValueError:
        return b""


def with_print(mark: str, print: str) -> str:
    """A mark as text, with what the message is known by over another protocol (prints.py) where it has any."""
    if not print:
        return mark
    return f"{mark}:{print}" if ":" in mark else f"{mark}::{print}"


def print_in(mark: str) -> str:
    """What a message is known by over another protocol; empty where the mark does not say."""
    return mark.split(":")[2] if mark.count(":") == 2 else ""


def _second(mark: str) -> str:
    return mark.partition(":")[2].partition(":")[0]


def packed(digits: str) -> bytes:
    """Hex digits of a mark's part as bytes; NO_MARK for what is none."""
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return NO_MARK
    return packed if len(packed) == MARK_BYTES else NO_MARK


class Marks:
    """UID → mark: the column of a snapshot, and what came since. Without a column it is ten bytes a message."""

    __slots__ = ("_base", "_column", "_fresh", "_starts", "_uids")

    def __init__(self) -> None:
        self._base: list[range] = []  # the UIDs of the column, ascending
        self._starts = array("Q")  # where in the column each of them begins, in marks
        self._column = b""
        self._uids = array("I")
        self._fresh = bytearray()

    def __bool__(self) -> bool:
        return bool(self._column or self._uids)

    @property
    def fresh(self) -> int:
        """How many came since the column."""
        return len(self._uids)

    @classmethod
    def of(cls, known: Known, column: bytes) -> "Marks":
        """The column of these UIDs, in their order."""
        made = cls()
        made._base, made._column = _spans(known), column
        made._starts = _starts(made._base)
        return made

    def put(self, uid: int, mark: bytes) -> None:
        """A message and its mark."""
        self._uids.append(uid)
        self._fresh += mark

    def over(self, base: "Marks") -> "Marks":
        """These marks on top of an older column, which is left as it is."""
        made = Marks()
        made._base, made._starts, made._column = base._base, base._starts, base._column
        made._uids, made._fresh = base._uids + self._uids, base._fresh + self._fresh
        return made

    def column(self, known: Known) -> bytes:
        """The marks of all known messages, in the order of their UIDs; NO_MARK where there is none."""
        spans = _spans(known)
        starts = _starts(spans)
        made = bytearray(MARK_BYTES * len(known))
        at = 0
        for span, start in zip(spans, starts, strict=True):
            while at < len(self._base) and self._base[at].stop <= span.start:
                at += 1
            i = at
            while i < len(self._base) and self._base[i].start < span.stop:
                first, stop = max(span.start, self._base[i].start), min(span.stop, self._base[i].stop)
                source = self._starts[i] + first - self._base[i].start
                target = start + first - span.start
                size = stop - first
                made[MARK_BYTES * target : MARK_BYTES * (target + size)] = self._column[
                    MARK_BYTES * source : MARK_BYTES * (source + size)
                ]
                i += 1
        firsts = array("I", [span.start for span in spans])
        for i, uid in enumerate(self._uids):
            place = bisect_right(firsts, uid) - 1
            if place >= 0 and uid in spans[place]:
                target = starts[place] + uid - spans[place].start
                made[MARK_BYTES * target : MARK_BYTES * (target + 1)] = self._fresh[
                    MARK_BYTES * i : MARK_BYTES * (i + 1)
                ]
        return bytes(made)


def _spans(known: Known) -> list[range]:
    """Runs without their keywords, so that neighbours are one."""
    spans: list[range] = []
    for run in known.runs():
        if spans and spans[-1].stop == run.first:
            spans[-1] = range(spans[-1].start, run.last + 1)
        else:
            spans.append(range(run.first, run.last + 1))
    return spans


def _starts(spans: Iterable[range]) -> "array[int]":
    starts = array("Q")
    total = 0
    for span in spans:
        starts.append(total)
        total += len(span)
    return starts


class _Table:
    """Marks in order → the entries that have them, in their order. Twelve bytes an entry."""

    def __init__(self, marks: Sequence[int], entries: Iterable[int]) -> None:
        order = sorted(entries, key=marks.__getitem__)  # stable: equal marks stay in the order of UIDs
        self._marks = array("Q", [marks[i] for i in order])
        self._entries = array("I", order)
        self._passed: dict[int, int] = {}  # how many of equal marks are found already, from the first on

    def has(self, mark: int) -> bool:
        at = bisect_left(self._marks, mark)
        return mark > 0 and at < len(self._marks) and self._marks[at] == mark

    def find(self, mark: int, taken: bytearray) -> int | None:
        """The first entry with this mark that is not taken."""
        passed = self._passed.get(mark, 0)
        at = bisect_left(self._marks, mark) + passed
        while mark and at < len(self._marks) and self._marks[at] == mark:
            if not taken[self._entries[at]]:
                return self._entries[at]
            passed += 1
            at += 1
            self._passed[mark] = passed
        return None


class Recogniser:
    """Marks of an epoch that is over: whether a message was there, and under which UID.

    Of equal marks each is recognised once, in the order of their UIDs: of three messages of the same size and second
    two of which were known, the last one is new. Where both have an identity it alone counts. Sorted once.
    """

    def __init__(
        self,
        known: Known,
        column: bytes,
        near: bytes,
        floor: datetime | None = None,
        *,
        ids: bytes = b"",
        near_ids: bytes = b"",
        names: Callable[[int], int] = int,
        whole: bool = True,
    ) -> None:
        """`names`: what the id of a UID was made of (numbers.py). `whole`: whether nothing is missing."""
        self.name_of, self.whole = names, whole
        self.floor = floor  # what arrived earlier and is not recognised was below the starting line
        self._uids = array("I")
        for span in _spans(known):
            self._uids.extend(span)
        self._uids.extend([0] * (len(near) // MARK_BYTES))
        count = len(self._uids)
        marks = _numbers(column + near, count)
        self._marks = _Table(marks, range(count))
        self._taken = bytearray(count)
        named = _numbers(ids.ljust(len(column), b"\0") + near_ids, count)
        self._ids = _Table(named, [i for i in range(count) if named[i]]) if any(named) else None
        self._without = _Table(marks, [i for i in range(count) if not named[i]]) if self._ids else self._marks
        # Whether some are known by their fingerprint alone.
        self.by_fingerprint = any(mark and not id for mark, id in zip(marks, named, strict=True))

    def has(self, mark: str) -> bool:
        """Whether a message with this mark was there, found already or not."""
        fingerprint, id = _number(packed_mark(mark)), _number(packed_id(mark))
        if id and self._ids is not None:
            return self._ids.has(id) or self._without.has(fingerprint)
        return self._marks.has(fingerprint)

    def take(self, mark: str) -> int | None:
        """The UID of a known message with this mark, which is found now; 0 where it was never announced.

        None for a message that was not there.
        """
        fingerprint, id = _number(packed_mark(mark)), _number(packed_id(mark))
        if id and self._ids is not None:
            found = self._ids.find(id, self._taken)
            if found is None:
                found = self._without.find(fingerprint, self._taken)
        else:
            found = self._marks.find(fingerprint, self._taken)
        if found is None:
            return None
        self._taken[found] = 1
        return self._uids[found]


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


def _numbers(packed: bytes, count: int) -> "array[int]":
    """`count` marks as numbers; 0 for those that are missing at the end."""
    return array("Q", [_number(packed[i : i + MARK_BYTES]) for i in range(0, MARK_BYTES * count, MARK_BYTES)])
