"""UID sets as servers write them → numbers; what COPYUID and APPENDUID say. Pure.

Used by commands.py. RFC 4315 (UIDPLUS), RFC 9051 section 9 (uid-set), RFC 6851 (MOVE answers as COPY does).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from service.errors import PeerError
from service.imap.spans import LAST, RUNS_LIMIT


@dataclass(frozen=True, slots=True)
class Moved:
    """Where messages are now: their old UIDs → the new ones, in an epoch of the mailbox they went to."""

    uidvalidity: int
    uids: dict[int, int]


def runs(text: str) -> list[range]:
    """A uid-set as ranges in its own order. Raises PeerError for what is none."""
    words = text.split(",")
    if len(words) > RUNS_LIMIT:
        raise PeerError(f"a set of over {RUNS_LIMIT} runs")
    found: list[range] = []
    for word in words:
        first, colon, last = word.partition(":")
        ends = [_uid(first), _uid(last)] if colon else [_uid(first)]
        # RFC 9051 section 9: 4:2 is 2:4.
        found.append(range(min(ends), max(ends) + 1))
    return found


def runs_of(uids: Sequence[int]) -> list[range]:
    """UIDs, ascending, as ranges."""
    found: list[range] = []
    if not uids:
        return found
    first = after = uids[0]
    for uid in uids:
        if uid != after:
            found.append(range(first, after))
            first = uid
        after = uid + 1
    found.append(range(first, after))
    return found


def moved(argument: str, limit: int) -> Moved:
    """COPYUID's argument (RFC 4315 section 3). Raises PeerError where it names more than `limit` messages."""
    words = argument.split()
    if len(words) != 3:
        raise PeerError("COPYUID without its three parts")
    old, new = runs(words[1]), runs(words[2])
    counts = sum(map(len, old)), sum(map(len, new))
    if counts[0] != counts[1] or counts[0] > limit:
        raise PeerError(f"COPYUID: {counts[0]} messages became {counts[1]}")
    return Moved(_uid(words[0]), dict(zip(chain.from_iterable(old), chain.from_iterable(new), strict=True)))


def moved_together(told: Sequence[Moved]) -> Moved | None:
    """What several COPYUID say of one command; None without any. Raises PeerError where they name two mailboxes."""
    if len({one.uidvalidity for one in told}) > 1:
        raise PeerError("COPYUID of two mailboxes")
    return Moved(told[0].uidvalidity, {old: new for one in told for old, new in one.uids.items()}) if told else None


def appended(argument: str) -> Moved:
    """APPENDUID's argument, for one message: its old UID is 0."""
    words = argument.split()
    if len(words) != 2:
        raise PeerError("APPENDUID without its two parts")
    return Moved(_uid(words[0]), {0: _uid(words[1])})


def _uid(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 10 and 0 < int(word) <= LAST):
        raise PeerError("a UID that is none")
    return int(word)
