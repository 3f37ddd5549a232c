"""IMAP flags ⇄ JMAP keywords (RFC 8621 4.1.1). Pure.

Used by ingest for what it announces and by commands for what they change. \\Deleted and \\Recent have no keyword.
"""

import re
from collections.abc import Iterable
from typing import Final

_KEYWORD_OF: Final = {r"\seen": "$seen", r"\flagged": "$flagged", r"\answered": "$answered", r"\draft": "$draft"}
_FLAG_OF: Final = {"$seen": r"\Seen", "$flagged": r"\Flagged", "$answered": r"\Answered", "$draft": r"\Draft"}
# RFC 8621 4.1.1: 1 to 255 characters of ASCII without those that an IMAP atom has not.
_KEYWORD: Final = re.compile(r"[!#-$&'+-\[^-z|}~]{1,255}")


def keywords(flags: Iterable[str]) -> dict[str, bool]:
    """IMAP flags → JMAP keywords: lower case, system flags renamed or hidden."""
    found: dict[str, bool] = {}
    for flag in flags:
        lowered = flag.lower()
        if lowered in _KEYWORD_OF:
            found[_KEYWORD_OF[lowered]] = True
        elif not lowered.startswith("\\"):
            found[lowered] = True
    return found


def is_keyword(word: str) -> bool:
    """Whether JMAP, and with it IMAP, allows this keyword."""
    return _KEYWORD.fullmatch(word) is not None


def flag_of(keyword: str) -> str:
    """A keyword → the flag that IMAP stores for it."""
    return _FLAG_OF.get(keyword.lower(), keyword)
