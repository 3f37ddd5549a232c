"""An event of a mailbox ⇄ what it changes in the known state: the text of its `Mail-State` header. Pure.

Written into each event by announce.py and parsing, read back by memory.py: the log since a snapshot is replayed by
headers alone. One line, ASCII: `<uid> <mark> <keyword>…`; of a reset: `<floor> <marks>`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

# RFC 8621 4.1.1: the IMAP flags that have a keyword of their own; \Deleted and \Recent have none.
SYSTEM: Final = {r"\seen": "$seen", r"\flagged": "$flagged", r"\answered": "$answered", r"\draft": "$draft"}
# RFC 8621 4.1.1: what a keyword may consist of.
_KEYWORD: Final = re.compile(r"[!#$&'+,\-./0-9:;<=>?@a-z\[^_`|}~]{1,255}")
# All keywords of a message stand in a header, which NATS bounds; nobody has set a hundred flags on a mail.
KEYWORDS_LIMIT_CHARS: Final = 8 * 1024
NONE: Final = "-"

Keywords = frozenset[str]


@lru_cache(maxsize=4096)
def keywords_of(flags: frozenset[str]) -> Keywords:
    """IMAP flags → JMAP keywords (RFC 8621 4.1.1): lower case, system flags renamed or hidden."""
    found: set[str] = set()
    for flag in flags:
        lowered = flag.lower()
        if lowered in SYSTEM:
            found.add(SYSTEM[lowered])
        elif _KEYWORD.fullmatch(lowered):
            found.add(lowered)
    kept: list[str] = []
    room = KEYWORDS_LIMIT_CHARS
    for keyword in sorted(found):
        room -= len(keyword) + 1
        if room < 0:
            break
        kept.append(keyword)
    return frozenset(kept)


@dataclass(frozen=True, slots=True)
class Note:
    """What an event says of one message; `mark` is empty where it says nothing new of it."""

    uid: int
    mark: str
    keywords: Keywords


@dataclass(frozen=True, slots=True)
class Line:
    """What a reset says of the mail that it does not announce: by date below `floor`, or by its mark."""

    floor: datetime | None
    marks: tuple[str, ...]


def dump_note(uid: int, mark: str = "", keywords: Iterable[str] = ()) -> str:
    """The header of a `received`, `changed` or `removed`."""
    return " ".join([str(uid), mark or NONE, *sorted(keywords)])


def load_note(text: str) -> Note | None:
    """The header's value; None for what is none."""
    uid, *rest = text.split(" ")
    if not uid.isdecimal() or not 0 < int(uid) < 2**32 or not rest:
        return None
    mark = "" if rest[0] == NONE else rest[0]
    return Note(int(uid), mark, frozenset(rest[1:]))


def dump_line(line: Line) -> str:
    """The header of a `reset`."""
    return " ".join([line.floor.isoformat() if line.floor else NONE, *line.marks])


def load_line(text: str) -> Line | None:
    """The header's value; None for what is none."""
    floor, *marks = text.split(" ")
    try:
        return Line(None if floor == NONE else datetime.fromisoformat(floor), tuple(marks))
    except ValueError:
        return None
