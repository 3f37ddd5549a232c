"""An event of a mailbox ⇄ what it changes in the known state: the text of its `Mail-State` header. Pure.

Written into each event by announce.py and parsing, read back by memory.py: the log since a snapshot is replayed by
headers alone. One line, ASCII: `<uid> <mark> <keyword>…`; of a reset: `<floor> <marks>`. Of a message that POP3
announced while IMAP was away its number stands in the place of the UID, and once it has a UID, `<uid>=<number>`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.contract import NUMBERS_FROM, Keywords

NONE: Final = "-"
_FIRST: Final = re.compile(r"([0-9]{1,10})(?:=([0-9]{1,10}))?")


@dataclass(frozen=True, slots=True)
class Note:
    """What an event says of one message; `mark` is empty where it says nothing new of it.

    `number`: that it was announced under, of a message that has its UID from now on; 0 of any other.
    """

    uid: int
    mark: str
    keywords: Keywords
    number: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """What a reset says of the mail that it does not announce: by date below `floor`, or by its mark."""

    floor: datetime | None
    marks: tuple[str, ...]


def dump_note(uid: int, mark: str = "", keywords: Iterable[str] = (), number: int = 0) -> str:
    """The header of a `received`, `changed` or `removed`."""
    return " ".join([f"{uid}={number}" if number else str(uid), mark or NONE, *sorted(keywords)])


def load_note(text: str) -> Note | None:
    """The header's value; None for what is none."""
    first, *rest = text.split(" ")
    found = _FIRST.fullmatch(first)
    if found is None or not rest:
        return None
    uid, number = int(found[1]), int(found[2] or 0)
    if not 0 < uid < 2 * NUMBERS_FROM or not (number == 0 or NUMBERS_FROM <= number < 2 * NUMBERS_FROM):
        return None
    mark = "" if rest[0] == NONE else rest[0]
    return Note(uid, mark, frozenset(rest[1:]), number)


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
