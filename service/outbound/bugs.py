"""A request → how often mailbus failed at it by a bug, in this process. Used by deliver.py.

How often it was delivered says nothing of that: it is given back as long as its relay is away. By its key and not by
its message: what fails after its intent comes back as a message of its own.
"""

from typing import Final

# Of as many requests at once; of those that are forgotten for others, it begins anew.
COUNTED_LIMIT: Final = 1_000


class Bugs:
    """What all senders of a process failed at."""

    def __init__(self, limit: int = COUNTED_LIMIT) -> None:
        self._limit = limit
        self._failed: dict[str, int] = {}

    def count(self, key: str) -> int:
        """Once more; gives how often it is by now."""
        count = self._failed.pop(key, 0) + 1
        while len(self._failed) >= self._limit:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = count
        return count
