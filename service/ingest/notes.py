"""An event of a mailbox ⇄ what it changes in the known state: the text of its `Mail-State` header. Pure.

Written into each event by announce.py and parsing, read back by memory.py: the log since a snapshot is replayed by
headers alone. One line, ASCII: `<uid> <mark> <keyword>…`; of a reset: `<floor> <marks>`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.contract import Keywords

NONE: Final = "-"


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
