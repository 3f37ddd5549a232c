"""Mail that POP3 announced under a number of its own, while IMAP was away → its UID, once IMAP has shown it. Pure.

Part of a mailbox's known state, moved on by its events (memory.py): `received` gives a number, `changed` pairs it with
a UID, `removed` ends it. Such a number is no UID (contract/ids.py), and an id that is made of it stays good for as long
as the message is there. 14 bytes each in a snapshot.
"""

import struct
from collections.abc import Collection
from typing import Final

from service.contract import NUMBERS_FROM
from service.ingest.marks import MARK_BYTES, NO_MARK

# Announced and not yet shown by IMAP: so many are kept at the most, some megabytes.
WAITING_LIMIT: Final = 20_000
_TOP: Final = struct.Struct(">I")
_ROW: Final = struct.Struct(f">II{MARK_BYTES}s")


class Numbers:
    """Of one mailbox in one epoch."""

    __slots__ = ("_by_print", "_numbers", "_prints", "_uids", "top")

    def __init__(self) -> None:
        self.top = NUMBERS_FROM  # the highest number that was given: none is given twice
        self._uids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}  # UID → number
        self._prints: dict[int, str] = {}  # of those that wait for their UID
        self._by_print: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._uids or self._prints)

    @property
    def waiting(self) -> Collection[int]:
        """Numbers that have no UID yet, ascending."""
        return self._prints.keys()

    def give(self, number: int, print: str) -> None:
        """A message was announced under a number."""
        self.top = max(self.top, number)
        self._prints[number] = print
        self._by_print.setdefault(print, []).append(number)

    def pair(self, number: int, uid: int) -> None:
        """IMAP has shown it."""
        self._settle(number)
        self._uids[number] = uid
        self._numbers[uid] = number

    def drop(self, number: int) -> None:
        """The message of a number or UID is gone."""
        self._settle(number)
        number = self._numbers.get(number, number)
        if (uid := self._uids.pop(number, 0)) > 0:
            del self._numbers[uid]

    def uid_of(self, number: int) -> int:
        """The UID of a number; 0 where it has none."""
        return self._uids.get(number, 0)

    def name_of(self, uid: int) -> int:
        """What a message's id is made of: the number that it was announced under, or its UID."""
        return self._numbers.get(uid, uid)

    def find(self, print: str, taken: Collection[int]) -> int:
        """The first number that waits for a message with this print; 0 where none does."""
        return next((number for number in self._by_print.get(print, ()) if number not in taken), 0) if print else 0

    def _settle(self, number: int) -> None:
        print = self._prints.pop(number, None)
        if print is not None:
            rest = self._by_print[print]
            rest.remove(number)
            if not rest:
                del self._by_print[print]

    def dump(self) -> bytes:
        """For a snapshot."""
        rows = [_ROW.pack(number - NUMBERS_FROM, uid, NO_MARK) for number, uid in self._uids.items()]
        rows += [_ROW.pack(number - NUMBERS_FROM, 0, bytes.fromhex(print)) for number, print in self._prints.items()]
        return _TOP.pack(self.top - NUMBERS_FROM) + b"".join(rows)

    @classmethod
    def load(cls, data: bytes) -> "Numbers":
        """Of a snapshot. Raises ValueError for what is none."""
        made = cls()
        if not data:
            return made
        if (len(data) - _TOP.size) % _ROW.size:
            raise ValueError("not a number for each row")
        for offset, uid, print in _ROW.iter_unpack(data[_TOP.size :]):
            if uid:
                made.pair(NUMBERS_FROM + offset, uid)
            else:
                made.give(NUMBERS_FROM + offset, print.hex())
        made.top = NUMBERS_FROM + _TOP.unpack_from(data)[0]
        return made
