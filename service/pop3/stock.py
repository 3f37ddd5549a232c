"""What a maildrop holds: numbers, sizes, and by what each message is known again. Pure.

Filled by maildrop.py as LIST and UIDL come. An identity is 16 bytes: a hash of the unique id (RFC 1939 7), or, where
that is missing, no legal one, or another message's already, of the content and of how many before it are the same.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from service.errors import PeerError

IDENTITY_BYTES: Final = 16
NO_IDENTITY: Final = bytes(IDENTITY_BYTES)
# Two milliseconds.
AT_ONCE: Final = 2_000


def uidl_identity(uidl: bytes) -> bytes:
    """Of a unique id."""
    return hashlib.sha256(b"uidl\0" + uidl).digest()[:IDENTITY_BYTES]


def content_of(body: bytes, size: int, *, whole: bool) -> str:
    """What a message's content is known by: of one that is not read whole its header and its size. Hex digits."""
    hashed = hashlib.sha256(body)
    if not whole:
        hashed.update(b"\0%d" % size)
    return hashed.hexdigest()


def _content_identity(content: str, occurrence: int) -> bytes:
    return hashlib.sha256(f"content\0{content}\0{occurrence}".encode()).digest()[:IDENTITY_BYTES]


class Listing:
    """One session's messages in the order of their numbers; what is meant by index is a place in it."""

    def __init__(self) -> None:
        self.numbers = array("I")
        self.sizes = array("Q")
        self.identities = bytearray()
        # While UIDL comes: the ids that there were.
        self._named: set[int] = set()
        # Messages without an identity, by index; and how many had no unique id.
        self.unnamed: list[int] = []
        self.nameless = 0
        # How many messages there are that LIST does not show; of how many of those that it shows UIDL says nothing.
        self.missing = 0
        self.untold = 0
        self.has_uidls = False
        self._told = bytearray()

    def __len__(self) -> int:
        return len(self.numbers)

    def take_sizes(self, rows: Iterable[tuple[int, int]]) -> None:
        """Lines of LIST. Raises PeerError for numbers out of order."""
        for number, size in rows:
            if self.numbers and number <= self.numbers[-1]:
                raise PeerError(f"message {number} after message {self.numbers[-1]} in a listing")
            self.numbers.append(number)
            self.sizes.append(size)
            self.identities += NO_IDENTITY
            self._told.append(0)

    def take_uidls(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Lines of UIDL. Of several messages with one id the first has it, as it had it before the others came."""
        for number, uidl in rows:
            at = bisect_left(self.numbers, number)
            if at == len(self.numbers) or self.numbers[at] != number:
                continue
            self._told[at] = 1
            if not uidl:
                continue
            identity = uidl_identity(uidl)
            key = int.from_bytes(identity[:8], "big")
            if key not in self._named:
                self._named.add(key)
                self._put(at, identity)

    def close(self, count: int | None, *, has_uidls: bool) -> Iterator[None]:
        """All lines were taken: find what has no identity. Pauses now and then, to let others have their turn.

        `count`: how many messages there are, as the server says; `has_uidls`: whether it has unique ids.
        """
        self.missing = max(0, (count or 0) - len(self))
        self.has_uidls = has_uidls
        self.untold = self._told.count(0) if has_uidls else 0
        self._named, self._told = set(), bytearray()
        for start in range(0, len(self), AT_ONCE):
            end = min(len(self), start + AT_ONCE)
            self.unnamed += [at for at in range(start, end) if self.identity(at) == NO_IDENTITY]
            yield
        self.nameless = len(self.unnamed)

    def name(self, contents: dict[int, str]) -> None:
        """Identities of the unnamed by their contents, which are given by index. Those without one stay unnamed."""
        counts: Counter[str] = Counter()
        left = []
        for at in self.unnamed:
            content = contents.get(at)
            if content is None:
                left.append(at)
                continue
            counts[content] += 1
            self._put(at, _content_identity(content, counts[content]))
        self.unnamed = left

    def identity(self, at: int) -> bytes:
        """Of the message at an index."""
        return bytes(self.identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)])

    def starts_as(self, other: "Listing") -> bool:
        """Whether it begins with all that another one holds: then nothing there went away, or changed its place.

        Where a size is another, it may be another message.
        """
        return self.identities.startswith(other.identities) and self.sizes[: len(other)] == other.sizes

    def _put(self, at: int, identity: bytes) -> None:
        self.identities[IDENTITY_BYTES * at : IDENTITY_BYTES * (at + 1)] = identity
