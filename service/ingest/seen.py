"""Identity of a message → its UID: all of a maildrop that was looked at, announced or not. Pure.

Used by memory.py and from_pop3.py: POP3 gives no numbers that last, so mailbus hands them out, in the order of first
sight. 28 bytes a message: a column of identities, one of UIDs, and a table of places that is open-addressed.
"""

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator
from typing import Final

IDENTITY_BYTES: Final = 16
_FREE: Final = 2**32 - 1
_FIRST_SLOTS: Final = 64


class Seen:
    """UIDs ascend in the order in which they are put."""

    __slots__ = ("_identities", "_slots", "_uids")

    def __init__(self, identities: bytes = b"", uids: "array[int] | None" = None) -> None:
        """Of a snapshot's columns. Raises ValueError where they do not fit each other."""
        self._uids = array("I")
        self._identities = bytearray()
        self._slots = array("I", [_FREE]) * _FIRST_SLOTS
        given = uids if uids is not None else array("I")
        if len(identities) != IDENTITY_BYTES * len(given):
            raise ValueError("not an identity for each UID")
        for at, uid in enumerate(given):
            self.put(identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)], uid)

    def __len__(self) -> int:
        return len(self._uids)

    @property
    def identities(self) -> bytes:
        """The column of identities."""
        return bytes(self._identities)

    @property
    def uids(self) -> "array[int]":
        """The column of UIDs."""
        return self._uids[:]

    def top(self) -> int:
        """The highest UID; 0 without one."""
        return self._uids[-1] if self._uids else 0

    def get(self, identity: bytes) -> int:
        """The UID of an identity; 0 where it was not seen."""
        place = self._slots[self._slot(identity)]
        return 0 if place == _FREE else self._uids[place]

    def identity(self, uid: int) -> bytes:
        """The identity of a UID; empty where it is none."""
        at = bisect_left(self._uids, uid)
        if at == len(self._uids) or self._uids[at] != uid:
            return b""
        return bytes(self._identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)])

    def put(self, identity: bytes, uid: int) -> None:
        """A message that was not seen before. Raises ValueError for a UID that is not the highest."""
        if uid <= self.top():
            raise ValueError(f"UID {uid} after {self.top()}")
        slot = self._slot(identity)
        if self._slots[slot] != _FREE:
            # The same once more: the newer UID counts.
            self._slots[slot] = len(self._uids)
        else:
            if 3 * len(self._uids) >= 2 * len(self._slots):
                self._grow()
                slot = self._slot(identity)
            self._slots[slot] = len(self._uids)
        self._uids.append(uid)
        self._identities += identity

    def reserve(self, count: int) -> None:
        """Room for so many: to move all of them later, at once, would hold up everybody else."""
        while 3 * count >= 2 * len(self._slots):
            self._grow()

    def without(self, gone: Container[int]) -> "Seen":
        """All but these UIDs."""
        kept = Seen()
        for at, uid in enumerate(self._uids):
            if uid not in gone:
                kept.put(bytes(self._identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)]), uid)
        return kept

    def __iter__(self) -> Iterator[int]:
        """The UIDs, ascending."""
        return iter(self._uids)

    def _slot(self, identity: bytes) -> int:
        """Where an identity stands, or would. Python's hash has a key of the process: nobody can aim at one slot."""
        mask = len(self._slots) - 1
        slot = hash(identity) & mask
        while (place := self._slots[slot]) != _FREE:
            start = IDENTITY_BYTES * place
            if self._identities[start : start + IDENTITY_BYTES] == identity:
                break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("I", [_FREE]) * (2 * len(self._slots))
        for place in range(len(self._uids)):
            start = IDENTITY_BYTES * place
            self._slots[self._slot(bytes(self._identities[start : start + IDENTITY_BYTES]))] = place
