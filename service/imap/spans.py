"""A sequence-set of a response → runs of numbers. Pure.

RFC 9051 section 9 (sequence-set), RFC 4731 3.1 (ALL), RFC 7162 3.2.10 (known-uids). Responses never have `*`. A set is
kept as it came until somebody wants what is in it: it may be 8 MB long, and name each number as often as it likes.
"""

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Final

from service.errors import PeerError

# What is read without a pause, where others wait for it; a longer set is one for a thread.
AT_ONCE_BYTES: Final = 32 * 1024
# A search over a mailbox of ten million messages; the runs of a set are what takes memory, not their length.
RUNS_LIMIT: Final = 1_000_000
# Of a set that is counted while all wait: 50 ms at worst. 30,000 UIDs without neighbours that go in one breath; where
# more do, the mailbox is opened anew and compared.
COUNTED_LIMIT_BYTES: Final = 256 * 1024
LAST: Final = 2**32 - 1

_SET: Final = re.compile(rb"\d{1,10}(?::\d{1,10})?(?:,\d{1,10}(?::\d{1,10})?)*\Z")
_PAIR: Final = re.compile(rb"(\d+):(\d+)")


def runs_in(texts: Iterable[bytes], first: int = 1, last: int = LAST) -> list[range]:
    """The numbers of sets from first to last as runs, ascending, each number once. Piece by piece, for a thread.

    Raises PeerError for what is no set, and beyond RUNS_LIMIT.
    """
    return joined(_joined(sorted(_cut(piece, first, last), key=_start)) for text in texts for piece in _pieces(text))


def joined(rows: Iterable[Sequence[range]]) -> list[range]:
    """Runs, ascending within each row → all of them ascending, each number once. Raises PeerError beyond RUNS_LIMIT."""
    kept: list[Sequence[range]] = []
    count = 0
    for row in filter(None, rows):
        kept.append(row)
        count += len(row)
        if count > RUNS_LIMIT:
            raise PeerError(f"a set of over {RUNS_LIMIT} runs")
    # Nearly always.
    is_ascending = all(one[-1].start <= other[0].start for one, other in pairwise(kept))
    return _joined(chain.from_iterable(kept) if is_ascending else heapq.merge(*kept, key=_start))


def highest(runs: Sequence[range], limit: int) -> list[int]:
    """The highest numbers of runs that are ascending, so many at the most; themselves ascending."""
    found: list[int] = []
    for run in reversed(runs):
        found += run[: -(limit - len(found)) - 1 : -1]
        if len(found) == limit:
            break
    return found[::-1]


def total(text: bytes) -> int:
    """How many numbers a set names, as it is written. Raises PeerError for what is none, or is too long."""
    if len(text) > COUNTED_LIMIT_BYTES:
        raise PeerError(f"a set of over {COUNTED_LIMIT_BYTES} bytes at once")
    if not _SET.match(text):
        raise PeerError("a set of numbers that is none")
    return 1 + text.count(b",") + sum(abs(int(low) - int(high)) for low, high in _PAIR.findall(text))


def _pieces(text: bytes) -> Iterator[bytes]:
    at, end = 0, 0
    while text and end >= 0:
        end = text.find(b",", at + AT_ONCE_BYTES)
        yield text[at : end if end >= 0 else len(text)]
        at = end + 1


def _cut(text: bytes, first: int, last: int) -> Iterator[range]:
    if not _SET.match(text):
        raise PeerError("a set of numbers that is none")
    for part in text.split(b","):
        low, _, high = part.partition(b":")
        a, b = int(low), int(high or low)
        # RFC 9051 section 9: 4:2 is 2:4. Nothing is beyond 32 bits.
        run = range(max(first, min(a, b)), min(last, max(a, b)) + 1)
        if run:
            yield run


def _joined(ascending: Iterable[range]) -> list[range]:
    found: list[range] = []
    for run in ascending:
        if not found or run.start > found[-1].stop:
            found.append(run)
        elif run.stop > found[-1].stop:
            found[-1] = range(found[-1].start, run.stop)
    return found


def _start(run: range) -> int:
    return run.start
