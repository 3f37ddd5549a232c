"""What a SEARCH or SORT found → numbers, or runs of them. Used by session.py, changes.py and writing.py.

A server without ESEARCH says a mailbox of a million messages in one line: that is read in a thread, while the event
loop serves others.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from service.imap.grammar import Search, numbers_in
from service.imap.uidplus import runs_of

T = TypeVar("T")


async def numbers_of(found: Sequence[Search]) -> list[int]:
    """All numbers, in the server's order; spans are not among them."""
    return await _read(_numbers, found)


async def runs_found(found: Sequence[Search]) -> list[range]:
    """All numbers and spans as runs, ascending."""
    return await _read(_runs, found)


async def _read(work: Callable[[Sequence[Search]], T], found: Sequence[Search]) -> T:
    return await asyncio.to_thread(work, found) if any(one.unread for one in found) else work(found)


def _numbers(found: Sequence[Search]) -> list[int]:
    numbers: list[int] = []
    for one in found:
        numbers += one.numbers
        numbers += numbers_in(one.unread)
    return numbers


def _runs(found: Sequence[Search]) -> list[range]:
    numbers = _numbers(found)
    runs = runs_of(numbers if _is_ascending(numbers) else sorted(set(numbers)))
    spans = [range(span.first, span.last + 1) for one in found for span in one.spans]
    return sorted([*runs, *spans], key=_start) if spans else runs


def _is_ascending(numbers: Sequence[int]) -> bool:
    """Nearly always; sorting a million would hold all threads for its whole length."""
    before = 0
    for number in numbers:
        if number <= before:
            return False
        before = number
    return True


def _start(run: range) -> int:
    return run.start
