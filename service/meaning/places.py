"""The lines of a notice → the addresses on them that may have failed, how sure that is, and what is said of each. Pure.

Used by notice.py. Each line is asked once, however many addresses it has: who wrote it may have wanted it to take long.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import Final

from service.meaning.fields import ADDRESS, clean, one_of

LINE_CHARS: Final = 1000
# What an address's rank rises by where it is the notice's own sender or reader: it failed only if nobody else did.
OWN: Final = 10
# More addresses than a notice to 200 recipients has, each named twice; what follows each is read.
_PLACES: Final = 500
# Of the lines that have addresses, so much is read, at 2 µs a character: 200 recipients with 120 each.
_ALL_CHARS: Final = 24 * 1024
# On one line; a notice that names its recipients in a row has a few.
_ADDRESSES: Final = 20
_POSTMASTERS: Final = ("postmaster@", "mailer-daemon@", "abuse@", "mailerdaemon@")
_LIST_END: Final = re.compile(r"^[ \t]*$")
_CODES: Final = re.compile(r"[45][0-5][0-9](?:[- ][45]\.[0-9]{1,3}\.[0-9]{1,3})?\Z")
# Words after which an address is one that did not fail: who sent, whom to ask.
_NOT_FAILED: Final = one_of(
    r"""
    mail from
    from:
    sender
    sent by
    reply-to
    contact
    e-?mail to
    please (?:mail|send|forward|write)
    postmaster
    support
    help
    questions?
    message-?id
    (?:generated|expanded) from
    administrator
    return-path
    on behalf of
    my badmailfrom
    assistance
    visit
    """,
    before=r"\b",
    after=r"\b",
)
_FIELD_LINE: Final = re.compile(
    r"^[ \t>*]{0,8}(?:to|cc|from|subject|sent|date|reply-to|message-id)[ \t]*:", re.IGNORECASE
)
_RCPT: Final = re.compile(r"rcpt[ _]to[\s:(<]*+(?:smtp:)?([^\s<>()\[\],;\"']{1,320})", re.IGNORECASE)
# What stands before an address that failed, from the line's beginning on. It is asked of lines whose runs of white
# space are one space: there are 10^10 ways to share 900 out among the pieces that may take some.
_NAMED: Final = one_of(
    r"""
    (?:failed |final |original |intended |bad )?(?:recipients?|address(?:ee)?(?:\(es\))?|rcpt|user|mailbox|destination)
    to
    [ \w,'()]{0,60}(?:deliver|failed|invalid|unknown|bounce|reject|problem|originally addressed)[ \w,'()]{0,60}
    """,
    before=r"^[ *(>-]*",
    after=r" ?(?::|=|to|for|recipient|user|address)? ?[:=]? ?[\[<\"'(]{0,2}(?:smtp:|rfc822;)? ?<?$",
)
_WHITE: Final = re.compile(r"[ \t]+")
_TAIL: Final = re.compile(r"^[>\]\)\"'*]*[ \t]*(?:[:;,.…-]|\(|\.{2,}|$|on \w{3}|\d{3}\b|<)")
# Words that a line has which says of an address that it failed.
_FAILS: Final = re.compile(
    r"unknown|deliver|reject|not exist|unavailable|quota|\bfull\b|fail|no such|invalid|recipient|mailbox|did not"
    r"|not found|addressed|does not|\b55[0-4]\b|\b5\.\d\.\d",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Refused:
    """One address, what the notice says after it, and the alias that led to it."""

    address: str
    said: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """An address on a line; the lower the rank, the surer."""

    line: int
    address: str
    rank: int

    def weighed(self, own: set[str], sender: str) -> "Place":
        """The same, less sure where it is of the notice itself, or of `sender`, whose mail came back."""
        low = self.address.lower()
        if low in own or low == sender or low.startswith(_POSTMASTERS):
            return Place(self.line, self.address, self.rank + OWN)
        return self


class Places:
    """The places on a notice's lines, read as far as they are asked for. `own`: its own addresses, in lower case."""

    def __init__(self, lines: list[str], own: set[str]) -> None:
        self.found: list[Place] = []
        # How many lines were read; fewer than were asked for where a limit ended it.
        self.read = 0
        self._lines = lines
        self._own = own
        self._previous = ""
        self._left = _ALL_CHARS

    def until(self, end: int) -> list[Place]:
        """Those on the lines before `end`, and before any `end` that was asked for earlier."""
        while self.read < min(end, len(self._lines)) and self._left >= 0 and len(self.found) < _PLACES:
            line = self._lines[self.read][:LINE_CHARS]
            if "@" in line:
                self._left -= len(line)
                if self._left < 0:
                    break
                self._look(line)
                self._previous = line
            elif line.strip() or not self._previous.endswith(":"):
                # What ends with a colon speaks of what comes, over an empty line, too.
                self._previous = line.strip()
            self.read += 1
        return self.found

    def _look(self, line: str) -> None:
        shown = _Line(line, self._previous)
        for found in islice(ADDRESS.finditer(line), _ADDRESSES):
            address = clean(found[0])
            domain = address.rpartition("@")[2]
            if not domain or len(address) > 320 or ("." not in domain and domain[0] != "["):
                continue
            if address.lower() in self._own and shown.is_field:
                continue  # the notice shows its own header
            rank = shown.rank(found.start(), found.end())
            if rank is not None:
                self.found.append(Place(self.read, address, rank))


class _Line:
    """What a line says of its addresses; asked once, however many there are. `previous`: what stands before it."""

    def __init__(self, line: str, previous: str) -> None:
        self.line = line
        self.is_field = _FIELD_LINE.match(line) is not None
        self._previous = previous
        self._rcpt = _RCPT.search(line)
        other = _NOT_FAILED.search(line)
        # From here on an address is one that did not fail.
        self._others = len(line) if other is None else other.end()
        self._fails: list[tuple[int, int]] | None = None

    def rank(self, start: int, end: int) -> int | None:
        """Of the address that stands there; None where it is none that failed."""
        before = self.line[:start]
        if self._rcpt is not None and self._rcpt.start(1) <= start <= self._rcpt.end(1):
            return 1
        if self._others <= start or (self.is_field and not before.strip().lower().startswith("to")):
            return None
        after = self.line[end:]
        opened = before.strip(" \t<*>-\"'[(|:\u3000&")
        if _CODES.match(opened) is not None:
            return 1
        if not opened or opened.lower() in ("smtp:", "smtp", "rfc822;"):
            # Alone on its line, or with what became of it behind it.
            if _TAIL.match(after) is not None:
                return 0 if not _NOT_FAILED.search(self._previous) else 4
            return 3
        if _NAMED.match(_WHITE.sub(" ", before)) is not None:
            return 1 if not self.is_field else 3
        if self._fails is None:
            self._fails = [found.span() for found in islice(_FAILS.finditer(self.line), _ADDRESSES)]
        return 2 if any(last <= start or first >= end for first, last in self._fails) else 5


def _starts(places: list[Place]) -> list[int]:
    """The lines on which something is said of another address than before; a reply that names it again goes on."""
    starts: list[int] = []
    line, address = -1, ""
    for place in places:
        low = place.address.lower()
        if low != address or place.line > line + 1:
            starts.append(place.line)
        line, address = place.line, low
    return sorted(set(starts))


# Sendmail: what the sender wrote, where an alias led elsewhere.
_EXPANDED: Final = re.compile(r"expanded from: ?<?([^\s<>()]{1,320}@[^\s<>()]{1,255})>?\)", re.IGNORECASE)
# Replies of a server weigh more than words. It begins with a set of characters, which is found fifteen times as fast.
_SAYS: Final = re.compile(r"[245](?<!\w.)(?:[0-5][0-9][ -]|\.\d{1,3}\.\d{1,3}\b)")


@dataclass(frozen=True, slots=True)
class _Said:
    """What follows an address; the alias that it says led to it; how much it is worth."""

    text: str
    alias: str
    weight: int


class After:
    """What a notice says after its places, and how much that is worth."""

    def __init__(self, lines: list[str], places: list[Place]) -> None:
        self._lines = lines
        self._starts = _starts(places)
        self._known: dict[int, _Said] = {}
        self._kept: dict[str, int] = {}

    def keep(self, place: Place, refused: Refused) -> None:
        """What is said there, if it is more than what was said of the address before."""
        said = self.of(place)
        low = refused.address.lower()
        if said.weight > self._kept.get(low, 0):
            refused.said, self._kept[low] = said.text, said.weight

    def of(self, place: Place) -> _Said:
        """The line of an address and what follows, up to the next address or past two empty lines."""
        if place.line not in self._known:
            text = self._read(place.line)
            alias = _EXPANDED.search(text)
            weight = (1000 if _SAYS.search(text) is not None else 0) + min(len(text), 900)
            self._known[place.line] = _Said(text, "" if alias is None else alias[1], weight)
        return self._known[place.line]

    def _read(self, at: int) -> str:
        following = bisect_right(self._starts, at)
        end = min(self._starts[following] if following < len(self._starts) else len(self._lines), at + 25)
        out: list[str] = []
        empty = 0
        for line in self._lines[at:end]:
            if _LIST_END.match(line):
                empty += 1
                if empty > 2:
                    break
                continue
            out.append(line.strip()[:LINE_CHARS])
        return "\n".join(out)
