"""IMAP flags ⇄ JMAP keywords (RFC 8621 4.1.1). Pure.

Used by ingest for what it announces and by commands for what they change. \\Deleted and \\Recent have no keyword.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

_KEYWORD_OF: Final = {r"\seen": "$seen", r"\flagged": "$flagged", r"\answered": "$answered", r"\draft": "$draft"}
_FLAG_OF: Final = {"$seen": r"\Seen", "$flagged": r"\Flagged", "$answered": r"\Answered", "$draft": r"\Draft"}
# RFC 8621 4.1.1: 1 to 255 characters of ASCII without those that an IMAP atom has not.
_KEYWORD: Final = re.compile(r"[!#-$&'+-\[^-z|}~]{1,255}")


# All keywords of a message stand in a header, which NATS bounds; nobody has set a hundred flags on a mail.
KEYWORDS_LIMIT_CHARS: Final = 8 * 1024
# Sets of more than these are not remembered.
USUAL_FLAGS: Final = 32

Keywords: TypeAlias = frozenset[str]


def keywords_of(flags: frozenset[str]) -> Keywords:
    """IMAP flags → JMAP keywords: lower case, system flags renamed or hidden; what no keyword can be is left out."""
    return _usual(flags) if len(flags) <= USUAL_FLAGS else _made(flags)


@lru_cache(maxsize=4096)
def _usual(flags: frozenset[str]) -> Keywords:
    return _made(flags)


def _made(flags: frozenset[str]) -> Keywords:
    found: set[str] = set()
    for flag in flags:
        lowered = flag.lower()
        if lowered in _KEYWORD_OF:
            found.add(_KEYWORD_OF[lowered])
        elif is_keyword(lowered):
            found.add(lowered)
    kept: list[str] = []
    room = KEYWORDS_LIMIT_CHARS
    for keyword in sorted(found):
        room -= len(keyword) + 1
        if room < 0:
            break
        kept.append(keyword)
    return frozenset(kept)


def keywords(flags: Iterable[str]) -> dict[str, bool]:
    """The same as the value of an Email's property."""
    return dict.fromkeys(sorted(keywords_of(frozenset(flags))), True)


def is_keyword(word: str) -> bool:
    """Whether JMAP, and with it IMAP, allows this keyword."""
    return _KEYWORD.fullmatch(word) is not None


def flag_of(keyword: str) -> str:
    """A keyword → the flag that IMAP stores for it."""
    return _FLAG_OF.get(keyword.lower(), keyword)
