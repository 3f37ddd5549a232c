"""Marks: by what a message is recognised where its UID has lost its meaning. Pure.

A mark is six bytes: a fingerprint of size and INTERNALDATE (RFC 9051 2.3.1.1 says that neither ever changes), or a
hash of EMAILID (RFC 8474 5.1) where the server has one. Used by memory.py and epochs.py.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from service.ingest.known import Known, Uids

MARK_BYTES: Final = 6
NO_MARK: Final = bytes(MARK_BYTES)


def packed_mark(mark: str) -> bytes:
    """A mark's hex digits as bytes; NO_MARK for what is none."""
    try:
        packed = bytes.fromhex(mark)
    except ValueError:
        return NO_MARK
    return packed if len(packed) == MARK_BYTES else NO_MARK


class Marks:
    """UID → mark: the column of a snapshot, and what came since. Without a column it is ten bytes a message."""

    __slots__ = ("_base", "_column", "_fresh", "_starts", "_uids")

    def __init__(self) -> None:
        self._base: list[Uids] = []  # the UIDs of the column, ascending
        self._starts = array("Q")  # where in the column each of them begins, in marks
        self._column = b""
        self._uids = array("I")
        self._fresh = bytearray()

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
            while at < len(self._base) and self._base[at].last < span.first:
                at += 1
            i = at
            while i < len(self._base) and self._base[i].first <= span.last:
                first, last = max(span.first, self._base[i].first), min(span.last, self._base[i].last)
                source = self._starts[i] + first - self._base[i].first
                target = start + first - span.first
                size = last - first + 1
                made[MARK_BYTES * target : MARK_BYTES * (target + size)] = self._column[
                    MARK_BYTES * source : MARK_BYTES * (source + size)
                ]
                i += 1
        firsts = array("I", [span.first for span in spans])
        for i, uid in enumerate(self._uids):
            place = bisect_right(firsts, uid) - 1
            if place >= 0 and uid <= spans[place].last:
                target = starts[place] + uid - spans[place].first
                made[MARK_BYTES * target : MARK_BYTES * (target + 1)] = self._fresh[
                    MARK_BYTES * i : MARK_BYTES * (i + 1)
                ]
        return bytes(made)


def _spans(known: Known) -> list[Uids]:
    """Runs without their keywords, so that neighbours are one."""
    spans: list[Uids] = []
    for run in known.runs():
        if spans and spans[-1].last + 1 == run.first:
            spans[-1] = Uids(spans[-1].first, run.last)
        else:
            spans.append(Uids(run.first, run.last))
    return spans


def _starts(spans: Iterable[Uids]) -> "array[int]":
    starts = array("Q")
    total = 0
    for span in spans:
        starts.append(total)
        total += span.last - span.first + 1
    return starts


class Recogniser:
    """Marks of an epoch that is over: whether a message was there, and under which UID.

    Of equal marks each is recognised once, in the order of their UIDs: of three messages of the same size and second
    two of which were known, the last one is new. Twelve bytes a message, sorted once.
    """

    def __init__(self, known: Known, column: bytes, near: bytes, floor: datetime | None = None) -> None:
        self.floor = floor  # what arrived earlier and is not recognised was below the starting line
        uids = array("I")
        for span in _spans(known):
            uids.extend(range(span.first, span.last + 1))
        uids.extend([0] * (len(near) // MARK_BYTES))
        both = column + near
        marks = array("Q", [int.from_bytes(both[i : i + MARK_BYTES], "big") for i in range(0, len(both), MARK_BYTES)])
        order = sorted(range(len(marks)), key=marks.__getitem__)  # stable: equal marks stay in the order of UIDs
        self._marks = array("Q", [marks[i] for i in order])
        self._uids = array("I", [uids[i] for i in order])
        self._taken: dict[int, int] = {}  # how many of equal marks are found already

    def has(self, packed: bytes) -> bool:
        """Whether a message with this mark was there, found already or not."""
        mark = int.from_bytes(packed, "big")
        at = bisect_left(self._marks, mark)
        return mark > 0 and at < len(self._marks) and self._marks[at] == mark

    def take(self, marks: Iterable[bytes]) -> int | None:
        """The UID of a known message with one of these marks, which is found now; 0 where it was never announced.

        None for a message that was not there.
        """
        for packed in marks:
            mark = int.from_bytes(packed, "big")
            at = bisect_left(self._marks, mark) + self._taken.get(mark, 0)
            if mark and at < len(self._marks) and self._marks[at] == mark:
                self._taken[mark] = self._taken.get(mark, 0) + 1
                return self._uids[at]
        return None
