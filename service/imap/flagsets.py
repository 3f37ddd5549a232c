"""The flags and labels of many messages, as one answer says them → sets, each of them once. Pure.

Used by session.py and changes.py. Messages have few distinct sets, and what is held of an answer is as much as its
messages, not as what a server may say of each: 32 KB of flags, and 16 of labels.
"""

from typing import Final

from service.errors import PeerError
from service.imap.grammar import Value, parse_flags
from service.imap.identity import NO_LABELS, Labels

# 100,000 messages that have ten flags of their own each. Who says more says it again at each look.
ROOM_BYTES: Final = 128 * 1024 * 1024
# What Python takes for a set and for each flag, beside its letters.
SET_BYTES: Final = 300
FLAG_BYTES: Final = 100


class FlagSets:
    """One answer's."""

    __slots__ = ("_labels", "_room", "_sets")

    def __init__(self) -> None:
        self._sets: dict[frozenset[str], frozenset[str]] = {}
        self._labels: dict[Labels, Labels] = {}
        self._room = ROOM_BYTES

    def read(self, value: Value) -> frozenset[str]:
        """The flags of one FETCH. Raises PeerError where there is no room for them."""
        flags = parse_flags(value)
        found = self._sets.get(flags)
        if found is not None:
            return found
        self._take(flags)
        self._sets[flags] = flags
        return flags

    def share(self, labels: Labels) -> Labels:
        """Labels that are made out already. Raises PeerError as `read` does."""
        if labels is NO_LABELS:
            return labels
        found = self._labels.get(labels)
        if found is not None:
            return found
        self._take(labels.flags)
        self._take(labels.mailboxes)
        self._labels[labels] = labels
        return labels

    def _take(self, words: frozenset[str]) -> None:
        self._room -= SET_BYTES + FLAG_BYTES * len(words) + sum(map(len, words))
        if self._room < 0:
            raise PeerError(f"the flags of messages take over {ROOM_BYTES} bytes at once")
