"""What a SEARCH or SORT found, or is gone → numbers, or runs of them. Used by session.py, changes.py and writing.py.

A server says a mailbox of a million messages in one line: that is read in a thread, while the event loop serves others.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from service.errors import PeerError
from service.imap.grammar import Search, numbers_in
from service.imap.spans import AT_ONCE_BYTES, LAST, joined, runs_in
from service.imap.uidplus import runs_of

# Numbers that are sorted without a pause.
AT_ONCE: Final = 4_000
T = TypeVar("T")


async def numbers_of(found: Sequence[Search]) -> list[int]:
    """All numbers, in the server's order; sets are not among them."""
    return await _read(partial(_numbers, found), [one.unread for one in found], where="")


async def runs_found(found: Sequence[Search], first: int = 1, last: int = LAST, *, where: str) -> list[range]:
    """All numbers, and those of sets, from first to last as runs, ascending. Raises PeerError as runs_in does."""
    texts = [text for one in found for text in (one.unread, one.every)]
    return await _read(partial(_runs, found, first, last), texts, where=where)


async def runs_gone(sets: Sequence[bytes], first: int, last: int, *, where: str) -> list[range]:
    """The same for sets alone."""
    return await _read(partial(runs_in, sets, first, last), sets, where=where)


async def _read(work: Callable[[], T], texts: Sequence[bytes], *, where: str) -> T:
    try:
        return await asyncio.to_thread(work) if sum(map(len, texts)) > AT_ONCE_BYTES else work()
    except PeerError as exc:
        exc.where = where
        raise


def _numbers(found: Sequence[Search]) -> list[int]:
    numbers: list[int] = []
    for one in found:
        numbers += one.numbers
        numbers += numbers_in(one.unread)
    return numbers


def _runs(found: Sequence[Search], first: int, last: int) -> list[range]:
    numbers = [number for number in _numbers(found) if first <= number <= last]
    # Piece by piece: sorting a million at once would hold all threads for its whole length.
    rows = [runs_of(sorted(set(numbers[at : at + AT_ONCE]))) for at in range(0, len(numbers), AT_ONCE)]
    return joined([*rows, runs_in((one.every for one in found), first, last)])
