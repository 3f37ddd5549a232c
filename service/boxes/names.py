"""Which of an account's mailboxes were there before: kept on the bus, so that what appeared is known over a kill.

Used by rounds.py. A mailbox counts as one that appeared until its own position is in the log: killed before that, the
next process finds it new as well.
"""

import hashlib
from collections.abc import Collection
from typing import Final

from service.bus import Conflict, KeyValue
from service.errors import Inward

# Of a name: with 20,000 of them 160 KB, and two alike in one of a hundred billion accounts.
DIGEST_BYTES: Final = 8


def digest(name: str) -> bytes:
    """A name as it is kept."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


class Names:
    """One account's, under one key of a bucket."""

    def __init__(self, bucket: KeyValue, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._there: frozenset[bytes] | None = None
        self._loaded = False

    async def load(self) -> None:
        """Learn what was there before, once: nothing is known where an account is followed for the first time.

        Raises Transient.
        """
        if not self._loaded:
            entry = await self._bucket.get(self._key)
            if entry is not None:
                at = range(0, len(entry.value), DIGEST_BYTES)
                self._there = frozenset(entry.value[start : start + DIGEST_BYTES] for start in at)
            self._loaded = True

    def appeared(self, name: str) -> bool:
        """Whether a mailbox was not there before."""
        return self._there is not None and digest(name) not in self._there

    async def save(self, names: Collection[str]) -> bool:
        """These are there now, and are new no more. Whether anything has changed. Raises Transient."""
        there = frozenset(map(digest, names))
        if there == self._there:
            return False
        value = b"".join(sorted(there))
        entry = await self._bucket.get(self._key)
        try:
            if entry is None:
                await self._bucket.create(self._key, value)
            else:
                await self._bucket.update(self._key, value, entry.revision)
        except Conflict as exc:
            raise Inward("another wrote the account's names meanwhile", where="mail-cursors") from exc
        self._there = there
        return True
