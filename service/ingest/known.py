"""UIDs and the keywords of each, by runs: what consumers believe to be in a mailbox. Pure.

Used by memory.py, which keeps one for each mailbox, and by changes.py, which compares it with the server.
A run is UIDs without a gap and with equal keywords: 12 bytes, however long.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.contract import Keywords
from service.ingest.sets import DIGESTS, Sets, is_same


@dataclass(frozen=True, slots=True)
class Run:
    """UIDs first to last, all there, all with the same keywords."""

    first: int
    last: int
    keywords: Keywords


@dataclass(frozen=True, slots=True)
class Flagged:
    """What a server says of a message's flags. `modseq` is 0 where it has none (RFC 7162).

    `keywords` with its other mailboxes (labels.py); `elsewhere`: as Surveyed has it.
    """

    uid: int
    keywords: Keywords
    modseq: int
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a known message: its keywords now, or None where it is gone."""

    uid: int
    keywords: Keywords | None
    modseq: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """Runs one beside the other: first and last UIDs, and the numbers of their keywords (sets.py) among `sets`."""

    first: "array[int]"
    last: "array[int]"
    numbers: "array[int]"
    sets: Sequence[Keywords]


class Known:
    """UID → keywords, or what stands in for them (sets.py)."""

    __slots__ = ("_count", "_first", "_last", "_set", "_sets")

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._first = array("I")
        self._last = array("I")
        self._set = array("I")
        self._sets = Sets()
        self._count = 0
        for run in runs:
            self._append(run.first, run.last, run.keywords)

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """How many runs it is kept as."""
        return len(self._first)

    def get(self, uid: int) -> Keywords | None:
        """The keywords of a message; None where it is not known."""
        at = bisect_right(self._first, uid) - 1
        if at < 0 or uid > self._last[at]:
            return None
        return self._sets.keywords(self._set[at])

    def put(self, uid: int, keywords: Keywords) -> None:
        """A message is there with these keywords."""
        if not self._last or uid > self._last[-1]:
            self._append(uid, uid, keywords)
        else:
            self._replace(uid, self._number(keywords))

    def discard(self, uid: int) -> None:
        """A message is gone."""
        self._replace(uid, None)

    def runs(self, first: int = 1, last: int = 2**32 - 1) -> Iterator[Run]:
        """The runs of UIDs first to last, ascending, cut at both ends."""
        at = max(0, bisect_right(self._first, first) - 1)
        while at < len(self._first) and self._first[at] <= last:
            if self._last[at] >= first:
                yield Run(max(first, self._first[at]), min(last, self._last[at]), self._sets.keywords(self._set[at]))
            at += 1

    def columns(self) -> Columns:
        """All runs, and the keywords that they have, in their order: equal states are equal columns."""
        place, sets = dict[int, int](), list[Keywords]()
        for number in dict.fromkeys(self._set):
            place[number] = len(sets) if number < DIGESTS else number
            sets += [self._sets.keywords(number)] if number < DIGESTS else []
        return Columns(self._first, self._last, array("I", map(place.__getitem__, self._set)), sets)

    def first_uid(self) -> int:
        """The lowest UID; 0 where nothing is known."""
        return self._first[0] if self._first else 0

    def window_end(self, first: int, last: int, limit: int) -> int:
        """How far from `first` a window may go that holds `limit` known UIDs at most; `last` at the most."""
        left = limit
        for run in self.runs(first, last):
            size = run.last - run.first + 1
            if size > left:
                return run.first + left - 1 if left else run.first - 1
            left -= size
        return last

    def _append(self, first: int, last: int, keywords: Keywords) -> None:
        number = self._number(keywords)
        if self._last and self._last[-1] + 1 == first and self._set[-1] == number:
            self._last[-1] = last
        else:
            self._first.append(first)
            self._last.append(last)
            self._set.append(number)
        self._count += last - first + 1

    def _replace(self, uid: int, number: int | None) -> None:
        at = bisect_right(self._first, uid) - 1
        inside = at >= 0 and uid <= self._last[at]
        self._count += (number is not None) - inside
        low = at if inside else at + 1
        high = low + inside
        pieces: list[tuple[int, int, int]] = []
        if inside and self._first[at] < uid:
            pieces.append((self._first[at], uid - 1, self._set[at]))
        if number is not None:
            pieces.append((uid, uid, number))
        if inside and uid < self._last[at]:
            pieces.append((uid + 1, self._last[at], self._set[at]))
        # The neighbours too: one of them may now be the same run.
        if low > 0:
            low -= 1
            pieces.insert(0, (self._first[low], self._last[low], self._set[low]))
        if high < len(self._first):
            pieces.append((self._first[high], self._last[high], self._set[high]))
            high += 1
        merged: list[tuple[int, int, int]] = []
        for piece in pieces:
            if merged and merged[-1][1] + 1 == piece[0] and merged[-1][2] == piece[2]:
                merged[-1] = (merged[-1][0], piece[1], piece[2])
            else:
                merged.append(piece)
        self._first[low:high] = array("I", [piece[0] for piece in merged])
        self._last[low:high] = array("I", [piece[1] for piece in merged])
        self._set[low:high] = array("I", [piece[2] for piece in merged])

    def _number(self, keywords: Keywords) -> int:
        if self._sets.is_crowded(len(self._set)):
            self._compact()
        return self._sets.number(keywords)

    def _compact(self) -> None:
        place = self._sets.compact(set(self._set))
        self._set = array("I", map(place.__getitem__, self._set))


def differences(known: Known, there: Iterable[Flagged], gone: Sequence[range]) -> list[Change]:
    """What is to be told, by UID: keywords that are others than before, and known messages that are gone.

    What a server says twice, or of messages that are not known, is no difference. Of a message that it calls gone and
    shows as well, what it shows counts. `gone`: ascending, no UID twice.
    """
    changes: dict[int, Change] = {}
    shown: set[int] = set()
    for message in there:
        before = known.get(message.uid)
        if before is None:
            continue
        shown.add(message.uid)
        if not is_same(before, message.keywords):
            changes[message.uid] = Change(message.uid, message.keywords, message.modseq)
        else:
            changes.pop(message.uid, None)
    for went in _known_among(known, gone):
        for uid in went:
            if uid not in shown:
                changes[uid] = Change(uid, None)
    return [changes[uid] for uid in sorted(changes)]


def missing(known: Known, first: int, last: int, present: Sequence[range]) -> list[range]:
    """The known UIDs of first to last that are not among `present`, which is ascending, no UID twice."""
    return without(_uids(known, first, last), present)


def without(uids: Iterable[range], others: Sequence[range]) -> list[range]:
    """UIDs that are not among others; both ascending, no UID twice. What lies far off costs nothing."""
    left: list[range] = []
    place = 0
    for run in uids:
        at = run.start
        place = bisect_right(others, at, lo=place, key=_stop)
        while place < len(others) and others[place].start < run.stop:
            if others[place].start > at:
                left.append(range(at, others[place].start))
            at = others[place].stop
            if at >= run.stop:
                break
            place += 1
        if at < run.stop:
            left.append(range(at, run.stop))
    return left


def runs_of(uids: Iterable[int]) -> list[range]:
    """UIDs in any order as runs, ascending."""
    found: list[range] = []
    for uid in sorted(uids):
        if found and uid <= found[-1].stop:
            found[-1] = range(found[-1].start, uid + 1)
        else:
            found.append(range(uid, uid + 1))
    return found


def _known_among(known: Known, uids: Sequence[range]) -> Iterator[range]:
    """The known ones of UIDs that are ascending; what lies between two of either costs nothing."""
    place = 0
    while place < len(uids) and (run := next(known.runs(uids[place].start), None)) is not None:
        one = uids[place]
        if run.first >= one.stop:
            place = bisect_right(uids, run.first, lo=place, key=_stop)
            continue
        yield from _uids(known, one.start, one.stop - 1)
        place += 1


def _uids(known: Known, first: int, last: int) -> list[range]:
    return [range(run.first, run.last + 1) for run in known.runs(first, last)]


def _stop(run: range) -> int:
    return run.stop
