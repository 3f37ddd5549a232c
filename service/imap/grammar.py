"""One whole response → what it says. Pure, without recursion.

Used by protocol.py on what wire.py cut. Grammar: RFC 9051 section 9; RFC 4731 for ESEARCH; and what servers
get wrong: NIL where there should be a value, dates that are none, unknown responses (given as Other).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Final, TypeAlias

from service.errors import PeerError
from service.imap.spans import AT_ONCE_BYTES, LAST

# BODYSTRUCTURE of real mail nests about ten deep.
DEPTH_LIMIT: Final = 200
NUMBER_LIMIT: Final = 2**63
VALUES_LIMIT: Final = 20_000  # of one response: a few for each of a message's flags and labels
NAME_LIMIT_BYTES: Final = 4096  # as much as a path may have on any file system
FLAG_LIMIT_BYTES: Final = 255  # RFC 8621 4.1.1: what is longer is no keyword
FLAGS_LIMIT: Final = 128  # of one message, in the server's order; nobody sets a hundred
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = {name.encode(): number for number, name in enumerate(MONTHS, 1)}

Value: TypeAlias = "bytes | list[Value] | None"


class Status(StrEnum):
    """RFC 9051 7.1: how a command or a connection fares."""

    OK = "OK"
    NO = "NO"
    BAD = "BAD"
    BYE = "BYE"
    PREAUTH = "PREAUTH"


@dataclass(frozen=True, slots=True)
class Condition:
    """A status response; `tag` is empty where it is untagged. `code` in capitals, RFC 5530 lists them."""

    tag: str
    status: Status
    code: str
    argument: str
    text: str


@dataclass(frozen=True, slots=True)
class Continuation:
    """`+`: the server wants more (RFC 9051 7.6)."""

    text: str


@dataclass(frozen=True, slots=True)
class Exists:
    """How many messages the mailbox has."""

    count: int


@dataclass(frozen=True, slots=True)
class Expunged:
    """The message of this sequence number is gone; all higher numbers go down by one."""

    seq: int


@dataclass(frozen=True, slots=True)
class Vanished:
    """RFC 7162 3.2.10: this set of UIDs is gone; `earlier`: before they were asked for, and not counted in EXISTS."""

    earlier: bool
    uids: bytes


@dataclass(frozen=True, slots=True)
class FetchData:
    """Message data by name in capitals; `BODY[...]` by what stands in the brackets too."""

    seq: int
    items: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """CAPABILITY, in capitals."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Enabled:
    """RFC 5161: what is switched on now."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Listed:
    """One mailbox of a LIST; attributes in lower case, the name as it is on the wire; `more`: RFC 5258 6, extended."""

    attributes: frozenset[str]
    delimiter: str | None
    name: bytes
    more: list[Value] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Search:
    """Numbers found; of an ESEARCH the MIN alone, or the set of ALL, and the tag of the command that it answers, where
    it has one. `unread`: many numbers, for numbers_in."""

    numbers: list[int]
    every: bytes = b""
    unread: bytes = b""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class StatusData:
    """RFC 9051 7.3.4: what STATUS says of a mailbox by item in capitals; the name as it is on the wire."""

    name: bytes
    items: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Other:
    """A response that this program does not ask for."""

    name: str


Numbers: TypeAlias = Exists | Expunged | Vanished | FetchData | Search
Response: TypeAlias = Condition | Continuation | Numbers | Capabilities | Enabled | Listed | StatusData | Other

_CONDITION: Final = re.compile(
    rb"(\*|[A-Za-z0-9]+) (OK|NO|BAD|BYE|PREAUTH)(?: +(?:\[([^\s\]]{1,100})(?: ([^\]]*))?\])? *(.*))?\Z",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERED: Final = re.compile(rb"\* (\d{1,10}) ([A-Za-z]+) ?")
# The shape in which most servers answer a survey: one match instead of twenty tokens [0.9 µs against 8 µs].
_SURVEY: Final = re.compile(
    rb'\* (\d{1,10}) FETCH \(UID (\d{1,10}) FLAGS \(([^()"]*)\) INTERNALDATE ("[^"]{20,30}")'
    rb" RFC822\.SIZE (\d{1,20})\)\Z"
)
# Flags alone, in both orders that servers use [0.9 µs against 6 µs].
_FLAGS: Final = re.compile(
    rb"\* (\d{1,10}) FETCH \(UID (\d{1,10})(?: MODSEQ \((\d{1,20})\))? FLAGS \(([^()\"]*)\)"
    rb"(?: MODSEQ \((\d{1,20})\))?\)\Z"
)
# It matches wherever it is tried, and looks for no end beyond the next bracket of its kind: what a server sends is read
# once, not once for each of its quotes, spaces or sections. A string without an end goes to the end of the line,
# and shows there that it is none.
_TOKEN: Final = re.compile(
    rb" *(?:(\()|(\))|\"((?:[^\"\\]|\\.)*)(\"?)|"
    rb"((?:BODY|BINARY)(?:\.SIZE)?\[[^\[\]]*\](?:<\d+>)?|[^ ()\"]+))| +\Z",
    re.IGNORECASE | re.DOTALL,
)
_DATE: Final = re.compile(rb'"? ?(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)"?\Z')


def parse_response(pieces: Sequence[bytes]) -> Response:
    """What a response says. Raises PeerError where it cannot be made out and the connection is out of step."""
    line = pieces[0]
    if line[:2] == b"* ":
        survey = _SURVEY.match(line) if len(pieces) == 1 else None
        if survey is not None:
            seq, uid, flags, date, size = survey.groups()
            split = list[Value](flags.split())
            items: dict[str, Value] = {"UID": uid, "FLAGS": split, "INTERNALDATE": date, "RFC822.SIZE": size}
            return FetchData(int(seq), items)
        flags_alone = _FLAGS.match(line) if len(pieces) == 1 else None
        if flags_alone is not None:
            seq, uid, before, flags, after = flags_alone.groups()
            items = {"UID": uid, "FLAGS": list[Value](flags.split())}
            if (modseq := before or after) is not None:
                items["MODSEQ"] = [modseq]
            return FetchData(int(seq), items)
        numbered = _NUMBERED.match(line)
        if numbered is not None:
            return _numbered(int(numbered[1]), numbered[2].upper(), pieces, numbered.end())
    if line[:1] == b"+":
        return Continuation(_text(line[1:].strip()))
    condition = _CONDITION.match(line)
    if condition is not None:
        tag, status, code, argument, text = (_text(group or b"") for group in condition.groups())
        return Condition("" if tag == "*" else tag, Status(status.upper()), code.upper(), argument, text)
    if line[:2] != b"* ":
        raise PeerError("a line that is no response of IMAP", remedy="is this an IMAP server's port?")
    name, _, _rest = line[2:].partition(b" ")
    return _named(_text(name).upper(), pieces, 2 + len(name))


def _numbered(number: int, name: bytes, pieces: Sequence[bytes], at: int) -> Response:
    match name:
        case b"EXISTS":
            return Exists(number)
        case b"EXPUNGE":
            return Expunged(number)
        case b"FETCH":
            values = parse_values(pieces, at)
            items = values[0] if values and isinstance(values[0], list) else []
            return FetchData(number, _paired(items))
        case _:
            return Other(_text(name))


def _paired(items: list[Value]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    at = 0
    while at < len(items):
        name = items[at]
        if isinstance(name, list):
            # Domino puts brackets round a pair: (UID 7 (ENVELOPE (…)) FLAGS (…)).
            if len(name) == 2 and isinstance(name[0], bytes):
                found[_text(name[0]).upper()] = name[1]
            at += 1
            continue
        if name is not None and at + 1 < len(items):
            found[_text(name).upper()] = items[at + 1]
        at += 2
    return found


def _named(name: str, pieces: Sequence[bytes], at: int) -> Response:
    match name:
        case "CAPABILITY":
            return Capabilities(_names(pieces[0][at:]))
        case "ENABLED":
            return Enabled(_names(pieces[0][at:]))
        case "SEARCH" | "SORT":
            text = pieces[0][at:]
            return Search(numbers_in(text)) if len(text) <= AT_ONCE_BYTES else Search([], unread=text)
        case "ESEARCH":
            return _esearch(parse_values(pieces, at))
        case "VANISHED":
            return _vanished(parse_values(pieces, at))
        case "STATUS":
            return _status(parse_values(pieces, at))
        case "LIST":
            return _listed(parse_values(pieces, at))
        case _:
            return Other(name)


def numbers_in(text: bytes) -> list[int]:
    """Numbers with spaces between; what is none is left out. For a thread: piece by piece, a million in 0.2 s."""
    found: list[int] = []
    at, end = 0, 0
    while end >= 0:
        end = text.find(b" ", at + AT_ONCE_BYTES)
        piece = text[at : end if end >= 0 else len(text)]
        found += [number for word in piece.split() if (number := parse_uid(word)) is not None]
        at = end
    return found


def _vanished(values: list[Value]) -> Response:
    match values:
        case [list(), bytes(uids)]:
            return Vanished(earlier=True, uids=uids)
        case [bytes(uids)]:
            return Vanished(earlier=False, uids=uids)
        case _:
            raise PeerError("VANISHED without UIDs")


def _esearch(values: list[Value]) -> Response:
    """RFC 4731: `(TAG …) UID`, then pairs of which the values that are asked for are no lists."""
    found = _paired([value for value in values if isinstance(value, bytes) and value.upper() != b"UID"])
    lowest, every = parse_uid(found.get("MIN")), found.get("ALL")
    told = _paired(values[0]).get("TAG") if values and isinstance(values[0], list) else None
    tag = _text(told) if isinstance(told, bytes) else ""
    return Search([] if lowest is None else [lowest], every if isinstance(every, bytes) else b"", tag=tag)


def _status(values: list[Value]) -> Response:
    match values:
        case [value, list(items), *_] if name := _mailbox_in(value):
            return StatusData(name, _paired(items))
        case _:
            return Other("STATUS")


def _listed(values: list[Value]) -> Response:
    match values:
        case [list(flags), delimiter, value, *more] if not isinstance(delimiter, list) and (name := _mailbox_in(value)):
            attributes = frozenset(_text(flag).lower() for flag in flags if isinstance(flag, bytes))
            return Listed(attributes, _text(delimiter) if delimiter else None, name, more)
        case _:
            return Other("LIST")


def _mailbox_in(value: Value) -> bytes:
    """A mailbox's name (RFC 9051 section 9: an astring, also NIL); empty for a list, and what is too long for one."""
    if isinstance(value, list) or len(value or b"") > NAME_LIMIT_BYTES:
        return b""
    return b"NIL" if value is None else value


def parse_values(pieces: Sequence[bytes], at: int) -> list[Value]:
    """Atoms, strings and literals as bytes, NIL as None, lists as lists; `at`: where in the first piece to begin.

    Raises PeerError on brackets that do not match, lists nested deeper than DEPTH_LIMIT, and over VALUES_LIMIT.
    """
    top: list[Value] = []
    open_lists, count = [top], 0
    for i, piece in enumerate(pieces):
        if i % 2:
            open_lists[-1].append(piece)
            continue
        tokens = _TOKEN.finditer(piece, at if i == 0 else 0)
        while (token := next(tokens, None)) is not None:
            opened, closed, string, end, atom = token.groups()
            if (count := count + 1) > VALUES_LIMIT:
                raise PeerError(f"a response of over {VALUES_LIMIT} values")
            if atom is not None:
                open_lists[-1].append(None if atom.upper() == b"NIL" else atom)
            elif string is not None and not end:
                # A quote that the server did not escape, and no string: what is behind it, and behind others, counts.
                tokens = _TOKEN.finditer(piece[token.start(3) :].replace(b'"', b" "))
            elif string is not None:
                open_lists[-1].append(_unescaped(string) if b"\\" in string else string)
            elif opened is not None:
                inner: list[Value] = []
                open_lists[-1].append(inner)
                open_lists.append(inner)
                if len(open_lists) > DEPTH_LIMIT:
                    raise PeerError(f"a response nested deeper than {DEPTH_LIMIT}")
            elif closed is not None:
                if len(open_lists) == 1:
                    raise PeerError("a response with a bracket too many")
                open_lists.pop()
    if len(open_lists) > 1:
        raise PeerError("a response with a bracket too few")
    return top


def _unescaped(string: bytes) -> bytes:
    return b"\\".join(piece.replace(b"\\", b"") for piece in string.split(b"\\\\"))


def parse_date(value: Value) -> datetime | None:
    """RFC 9051 section 9, date-time → UTC; None for what is no date."""
    found = _DATE.match(value) if isinstance(value, bytes) else None
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = timezone(-offset if sign == b"-" else offset) if offset else UTC
        # A leap second is a second that datetime does not know.
        local = datetime(
            int(year), _MONTH[month.lower()], int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
        )
        return local.astimezone(UTC) if offset else local
    except (KeyError, ValueError, OverflowError):
        return None


def parse_number(value: Value) -> int | None:
    """A number; None for what is none (RFC 9051 section 9, number64: 63 bits are the most that anything has)."""
    number = int(value) if isinstance(value, bytes) and value.isdigit() and len(value) <= 20 else NUMBER_LIMIT
    return number if number < NUMBER_LIMIT else None


def parse_uid(value: Value) -> int | None:
    """A UID, or a UIDVALIDITY; None for what is none (RFC 9051 section 9, nz-number: 32 bits)."""
    number = parse_number(value) or 0
    return number if 0 < number <= LAST else None


def parse_modseq(value: Value) -> int:
    """RFC 7162 3.1.4.2: a number in brackets; 0 for what is none."""
    match value:
        case [bytes(number)]:
            return parse_number(number) or 0
        case _:
            return 0


def parse_flags(value: Value) -> frozenset[str]:
    """The flags of a FETCH, as far as they can mean anything; empty for what is no list."""
    flags = value[:FLAGS_LIMIT] if isinstance(value, list) else []
    return frozenset(_text(flag) for flag in flags if isinstance(flag, bytes) and len(flag) <= FLAG_LIMIT_BYTES)


def _names(text: bytes) -> frozenset[str]:
    return frozenset(_text(text).upper().split())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
