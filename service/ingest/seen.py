"""Identity of a message → its UID: all of a maildrop that was looked at, announced or not. Pure.

Used by memory.py and from_pop3.py: POP3 gives no numbers that last, so mailbus hands them out, in the order of first
sight. 34 bytes a message: columns of identities, of UIDs and of prints (prints.py), and a table of places that is
open-addressed. The table grows a little with each message: at 200,000 all at once would take a third of a second.
"""

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator
from typing import Final

IDENTITY_BYTES: Final = 16
PRINT_BYTES: Final = 6
NO_PRINT: Final = bytes(PRINT_BYTES)
# Messages that others may have their turn between: two milliseconds.
AT_ONCE: Final = 500
_FREE: Final = 2**32 - 1
_FIRST_SLOTS: Final = 64
# Places that move to the larger table with each message that comes: all have long before it is full.
_MOVES: Final = 4


class Seen:
    """UIDs ascend in the order in which they are put."""

    __slots__ = ("_before", "_identities", "_moved", "_prints", "_slots", "_uids", "_used", "renamed")

    def __init__(self, identities: bytes = b"", uids: "array[int] | None" = None, prints: bytes = b"") -> None:
        """Of a snapshot's columns. Raises ValueError where they do not fit each other."""
        self._uids = array("I")
        self._identities = bytearray()
        self._prints = bytearray()
        self._slots = array("I", [_FREE]) * _FIRST_SLOTS
        self._used = 0
        # The smaller table, while there are places that are in it alone; those below `moved` are in the larger one.
        self._before = array("I")
        self._moved = 0
        self.renamed = False  # whether an identity is another than the log says: a snapshot is to know
        given = uids if uids is not None else array("I")
        prints = prints or bytes(PRINT_BYTES * len(given))
        if len(identities) != IDENTITY_BYTES * len(given) or len(prints) != PRINT_BYTES * len(given):
            raise ValueError("not an identity and a print for each UID")
        for at, uid in enumerate(given):
            start = PRINT_BYTES * at
            identity = identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)]
            self.put(identity, uid, prints[start : start + PRINT_BYTES])

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

    @property
    def prints(self) -> bytes:
        """The column of prints."""
        return bytes(self._prints)

    def top(self) -> int:
        """The highest UID; 0 without one."""
        return self._uids[-1] if self._uids else 0

    def get(self, identity: bytes) -> int:
        """The UID of an identity; 0 where it was not seen."""
        place = self._slots[self._slot(self._slots, identity)]
        if place == _FREE and self._before:
            place = self._before[self._slot(self._before, identity)]
        return 0 if place == _FREE else self._uids[place]

    def identity(self, uid: int) -> bytes:
        """The identity of a UID; empty where it is none."""
        at = self._at(uid)
        return b"" if at is None else bytes(self._identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)])

    def print(self, uid: int) -> bytes:
        """The print of a UID's message; empty where none is known."""
        at = self._at(uid)
        found = b"" if at is None else bytes(self._prints[PRINT_BYTES * at : PRINT_BYTES * (at + 1)])
        return b"" if found == NO_PRINT else found

    def put(self, identity: bytes, uid: int, print: bytes = NO_PRINT) -> None:
        """A message that was not seen before. Raises ValueError for a UID that is not the highest.

        The same identity once more: the newer UID counts.
        """
        if uid <= self.top():
            raise ValueError(f"UID {uid} after {self.top()}")
        self._uids.append(uid)
        self._identities += identity
        self._prints += print
        self._enter(identity, len(self._uids) - 1)
        self._make_room()

    def tell(self, uid: int, print: bytes) -> None:
        """What a UID's message is known by beside its identity."""
        if (at := self._at(uid)) is not None:
            self._prints[PRINT_BYTES * at : PRINT_BYTES * (at + 1)] = print

    def rename(self, uid: int, identity: bytes) -> None:
        """A message has another identity by now, which nothing here has."""
        at = self._at(uid)
        if at is None:
            return
        self._identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)] = identity
        self.renamed = True
        # Where the old one stood is found by nobody any more; the slot stays taken until there is another table.
        self._enter(identity, at)
        self._make_room()

    def without(self, gone: Container[int], kept: "Seen") -> Iterator[None]:
        """All but these UIDs go to `kept`. Pauses now and then."""
        kept.renamed = self.renamed
        for at, uid in enumerate(self._uids):
            if at % AT_ONCE == 0:
                yield
            if uid not in gone:
                identity = bytes(self._identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)])
                kept.put(identity, uid, bytes(self._prints[PRINT_BYTES * at : PRINT_BYTES * (at + 1)]))

    def __iter__(self) -> Iterator[int]:
        """The UIDs, ascending."""
        return iter(self._uids)

    def _at(self, uid: int) -> int | None:
        at = bisect_left(self._uids, uid)
        return at if at < len(self._uids) and self._uids[at] == uid else None

    def _slot(self, slots: "array[int]", identity: bytes) -> int:
        """Where an identity stands, or would. Python's hash has a key of the process: nobody can aim at one slot."""
        mask = len(slots) - 1
        slot = hash(identity) & mask
        while (place := slots[slot]) != _FREE:
            start = IDENTITY_BYTES * place
            if self._identities[start : start + IDENTITY_BYTES] == identity:
                break
            slot = (slot + 1) & mask
        return slot

    def _enter(self, identity: bytes, place: int) -> None:
        slot = self._slot(self._slots, identity)
        self._used += self._slots[slot] == _FREE
        self._slots[slot] = place

    def _make_room(self) -> None:
        """After each entry: a table without a free slot would be looked through for ever."""
        if self._before:
            self._go_on()
        elif 3 * self._used >= 2 * len(self._slots):
            # Another of the same size where most slots are taken by identities that are no more.
            times = 2 if 3 * len(self._uids) >= len(self._slots) else 1
            self._before, self._moved = self._slots, 0
            self._slots, self._used = array("I", [_FREE]) * (times * len(self._slots)), 0

    def _go_on(self) -> None:
        end = min(self._moved + _MOVES, len(self._uids))
        for place in range(self._moved, end):
            start = IDENTITY_BYTES * place
            identity = bytes(self._identities[start : start + IDENTITY_BYTES])
            slot = self._slot(self._slots, identity)
            # What came under the same identity since is newer.
            if self._slots[slot] == _FREE or self._slots[slot] < place:
                self._used += self._slots[slot] == _FREE
                self._slots[slot] = place
        self._moved = end
        if end == len(self._uids):
            self._before = array("I")
