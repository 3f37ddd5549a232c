"""An account → the replica that has it, among those that are there. Pure.

Rendezvous hashing, weighted: each replica draws a number for the account, by hash, and the highest has it. So all
replicas find the same without asking, one that joins takes its share from all others, and one that leaves gives its
own to all others; nothing else moves. Used by roster.py, and by whoever must know where an account is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

# A double tells this many apart in (0, 1): with more, the highest draw would round to 1, whose logarithm is 0.
DRAW_BITS: Final = 52
_ALL: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Replica:
    """One that accounts may be given to. `capacity`: its share beside those of the others, more than 0."""

    instance: str
    capacity: float = 1.0


def owner(account: str, replicas: Iterable[Replica]) -> str | None:
    """The instance that has the account; None where nobody is there."""
    seed = _seed(account, b"account")
    best: tuple[float, str] | None = None
    for replica in replicas:
        drawn = (_score(seed, replica), replica.instance)
        if best is None or drawn > best:
            best = drawn
    return None if best is None else best[1]


@lru_cache(maxsize=65_536)
def _seed(name: str, kind: bytes) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=kind).digest(), "big")


def _score(account: int, replica: Replica) -> float:
    """Exponentially distributed by the capacity: so each wins in proportion to it, whatever the others have."""
    # MurmurHash3's last steps: a hash of each pair by itself takes three times as long, 10,000 accounts on 100
    # replicas are a million.
    mixed = account ^ _seed(replica.instance, b"instance")
    mixed = ((mixed ^ (mixed >> 33)) * 0xFF51AFD7ED558CCD) & _ALL
    mixed = ((mixed ^ (mixed >> 33)) * 0xC4CEB9FE1A85EC53) & _ALL
    mixed ^= mixed >> 33
    drawn = ((mixed >> (64 - DRAW_BITS)) + 0.5) / (1 << DRAW_BITS)
    return -replica.capacity / math.log(drawn)
