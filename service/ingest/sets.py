"""Sets of keywords ⇄ numbers: what known.py keeps for each run in the place of its keywords. Pure.

A mailbox has few distinct sets, and these are kept. One whose mails all have keywords of their own has as many as
mails: those beyond the room that a mailbox has for them are known by a digest, which is the number itself. It tells all
the same whether a mail's keywords are others now; one change in two thousand million would be missed.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from service.contract import Keywords

# Some 300 usual sets; a thousand mailboxes may have them.
ROOM_BYTES: Final = 256 * 1024
# What Python takes for a set and for each word, beside its letters.
SET_BYTES: Final = 300
WORD_BYTES: Final = 100
# Sets that no run uses any more are thrown away when there are this many more than could be in use.
SPARE: Final = 64
# Numbers from here on are digests.
DIGESTS: Final = 2**31
# No keyword begins so, nor what labels.py keeps among them.
SIGN: Final = "\\#"


class Sets:
    """One mailbox's."""

    __slots__ = ("_bytes", "_numbers", "_refused", "_sets")

    def __init__(self) -> None:
        self._sets: list[Keywords] = []
        self._numbers: dict[Keywords, int] = {}
        self._bytes = 0
        # How often there was no room since those that nothing uses were thrown away.
        self._refused = 0

    def __len__(self) -> int:
        return len(self._sets)

    def number(self, keywords: Keywords) -> int:
        """The number of a set; of a stand-in that of what it stands for."""
        number = self._numbers.get(keywords)
        if number is not None:
            return number
        if (digest := _digest_in(keywords)) is not None:
            return digest
        costs = _costs(keywords)
        if self._bytes + costs > ROOM_BYTES:
            self._refused += 1
            return _digest(keywords)
        self._sets.append(keywords)
        self._bytes += costs
        self._numbers[keywords] = len(self._sets) - 1
        return len(self._sets) - 1

    def keywords(self, number: int) -> Keywords:
        """The set of a number, or what stands in for it where that is a digest. Raises IndexError for none."""
        return self._sets[number] if number < DIGESTS else stand_in(number)

    def is_crowded(self, runs: int) -> bool:
        """Whether there are many that none of so many runs can be using."""
        return self._refused > SPARE + runs or len(self._sets) >= SPARE + 2 * runs

    def compact(self, used: Iterable[int]) -> dict[int, int]:
        """Throw away all but these; gives what their numbers have become."""
        place = {number: number for number in used if number >= DIGESTS}
        kept = sorted(number for number in set(used) if number < DIGESTS)
        place |= {old: new for new, old in enumerate(kept)}
        self._sets = [self._sets[old] for old in kept]
        self._numbers = {keywords: number for number, keywords in enumerate(self._sets)}
        self._bytes = sum(map(_costs, self._sets))
        self._refused = 0
        return place


def stand_in(digest: int) -> Keywords:
    """What stands in for the set of a digest."""
    return frozenset({f"{SIGN}{digest:08x}"})


def is_same(known: Keywords, keywords: Keywords) -> bool:
    """Whether what is known of a message's keywords are these."""
    if known == keywords:
        return True
    digest = _digest_in(known)
    return digest is not None and digest == _digest(keywords)


def _costs(keywords: Keywords) -> int:
    return SET_BYTES + WORD_BYTES * len(keywords) + sum(map(len, keywords))


def _digest(keywords: Keywords) -> int:
    # Words have no spaces.
    made = blake2b(" ".join(sorted(keywords)).encode("utf-8", "surrogatepass"), digest_size=4)
    return DIGESTS | int.from_bytes(made.digest(), "big")


def _digest_in(keywords: Keywords) -> int | None:
    if len(keywords) != 1:
        return None
    (word,) = keywords
    return int(word.removeprefix(SIGN), 16) if word.startswith(SIGN) else None
