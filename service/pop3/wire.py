"""Bytes from a POP3 server → replies and what follows them; commands → bytes. Pure.

Fed by protocol.py, tested by tests/pop3/test_wire.py. Knows no account and no connection.
Grammar: RFC 1939 sections 3 and 5 to 7; RFC 2449 sections 4, 5 and 8 (capabilities, lengths, response codes);
RFC 5034 (AUTH).
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from service.errors import PeerError, Permanent

# RFC 2449 4: a response line has 512 octets at most; challenges of SASL and banners of real servers are longer.
LINE_LIMIT_BYTES: Final = 8 * 1024
# RFC 2449 4: a command has 255 octets at most, its CRLF included.
COMMAND_LIMIT_BYTES: Final = 255
# Lines of one listing: five times the largest maildrop that is known of; and what they may be in all.
ROWS_LIMIT: Final = 1_000_000
LISTING_LIMIT_BYTES: Final = 100 * 1024 * 1024
TEXT_LIMIT_CHARS: Final = 512
# RFC 1939 7: one to 70 characters from 0x21 to 0x7E.
UIDL_LIMIT_BYTES: Final = 70

_END: Final = b".\r\n"
_NEXT_END: Final = b"\r\n.\r\n"
_STATUS: Final = re.compile(rb"(\+OK|-ERR)(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)
# RFC 2449 8: levels are divided by a slash.
_CODE: Final = re.compile(r"\[([A-Za-z0-9][A-Za-z0-9/_.-]*)[^\]]*\] ?(.*)", re.DOTALL)
_ROW: Final = re.compile(rb"([0-9]{1,10})(?:[ \t]+(.*))?", re.DOTALL)
_COUNT: Final = re.compile(r"[0-9]{1,10}(?![0-9])", re.ASCII)
_SIZE: Final = re.compile(rb"[0-9]{1,19}")
_UIDL: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % UIDL_LIMIT_BYTES)
# A line end would begin another command; a space would begin another argument.
_UNSAYABLE: Final = re.compile(r"[\x00-\x1f\x7f]|[\ud800-\udfff]")


class Shape(Enum):
    """What follows a `+OK`: nothing, lines, or a message. A `-ERR` ends each of them."""

    LINE = auto()
    ROWS = auto()
    MESSAGE = auto()


@dataclass(frozen=True, slots=True)
class Status:
    """`+OK` or `-ERR`; `code` is in capitals, empty without one; `text` in one printable line, without the code."""

    ok: bool
    code: str
    text: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.text}" if self.code else self.text


@dataclass(frozen=True, slots=True)
class Challenge:
    """RFC 5034 4: the server wants to hear more of an AUTH; `text` in base64."""

    text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Lines of a listing, without their CRLF and their stuffing; `last`: there are no more."""

    rows: list[bytes]
    last: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message with CRLF at the end of each line, its stuffing taken away."""

    body: bytes


Piece = Status | Challenge | Rows | Message


class ReplyParser:
    """Cuts replies out of what comes, in the order of what is expected. Nothing may come that is not."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._expected: deque[tuple[Shape, int]] = deque()
        self._inside = False
        self._rows = 0
        self._listed = 0

    @property
    def empty(self) -> bool:
        """Whether all that came is cut."""
        return not self._buffer

    def expect(self, shape: Shape, limit_bytes: int = 0) -> None:
        """One more reply will come, of this shape; `limit_bytes` for a message or all of a listing."""
        self._expected.append((shape, limit_bytes))

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Every piece that is there now. Raises PeerError on what is no reply, too long, or nobody asked for."""
        self._buffer += data
        while self._buffer:
            piece = self._next()
            if piece is None:
                return
            yield piece

    def _next(self) -> Piece | None:
        if not self._expected:
            raise PeerError(f"the server spoke out of turn: {printable(bytes(self._buffer[:80]))}")
        shape, limit = self._expected[0]
        if not self._inside:
            return self._line(shape)
        return self._message(limit) if shape is Shape.MESSAGE else self._listing(limit)

    def _line(self, shape: Shape) -> Status | Challenge | None:
        end = self._buffer.find(b"\r\n", self._searched)
        if (end if end >= 0 else len(self._buffer)) > LINE_LIMIT_BYTES:
            raise PeerError(f"a line longer than {LINE_LIMIT_BYTES} bytes")
        if end < 0:
            self._searched = max(0, len(self._buffer) - 1)
            return None
        line = self._cut(end, 2)
        if line == b"+" or line.startswith(b"+ "):
            return Challenge(line[2:].decode("ascii", "replace"))
        status = parse_status(line)
        if status.ok and shape is not Shape.LINE:
            self._inside, self._rows, self._listed = True, 0, 0
        else:
            self._expected.popleft()
        return status

    def _message(self, limit: int) -> Message | None:
        # RFC 1939 3: only CRLF, a dot and CRLF are the end: a dot after a bare LF is the message's own.
        if self._buffer.startswith(_END):
            end, size = 0, len(_END)
        else:
            end = self._buffer.find(_NEXT_END, self._searched)
            end, size = (end + 2, len(_END)) if end >= 0 else (-1, 0)
        if (end if end >= 0 else len(self._buffer) - len(_NEXT_END)) > limit:
            raise PeerError(f"a message longer than the {limit} bytes that are allowed")
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(_NEXT_END) + 1)
            return None
        body = self._cut(end, size)
        self._leave()
        return Message(unstuffed(body))

    def _listing(self, limit: int) -> Rows | None:
        if self._buffer.startswith(_END):
            self._cut(0, len(_END))
            self._leave()
            return Rows([], last=True)
        end = self._buffer.find(_NEXT_END, self._searched)
        last = end >= 0
        if not last:
            end = self._buffer.rfind(b"\r\n")
            if len(self._buffer) - max(end, 0) > LINE_LIMIT_BYTES:
                raise PeerError(f"a line longer than {LINE_LIMIT_BYTES} bytes")
            if end < 0:
                return None
        rows = self._cut(end, len(_NEXT_END) if last else 2).split(b"\r\n")
        self._rows += len(rows)
        self._listed += end
        if self._rows > ROWS_LIMIT or self._listed > limit or max(map(len, rows)) > LINE_LIMIT_BYTES:
            raise PeerError(f"a listing of over {ROWS_LIMIT} lines or {limit} bytes, or a line that is too long")
        if last:
            self._leave()
        return Rows([row[1:] if row.startswith(b".") else row for row in rows], last)

    def _cut(self, end: int, behind: int) -> bytes:
        """The buffer up to `end`; so many bytes more go with it."""
        with memoryview(self._buffer) as view:
            taken = bytes(view[:end])
        del self._buffer[: end + behind]
        self._searched = 0
        return taken

    def _leave(self) -> None:
        self._inside = False
        self._expected.popleft()


def unstuffed(body: bytes) -> bytes:
    """RFC 1939 3: a line that begins with a dot has got another one."""
    if b"\r\n.." in body:
        body = body.replace(b"\r\n..", b"\r\n.")
    return body[1:] if body.startswith(b"..") else body


def parse_status(line: bytes) -> Status:
    """A line without its CRLF. Raises PeerError for what is no status (RFC 1939 3)."""
    found = _STATUS.fullmatch(line)
    if found is None:
        raise PeerError(f"not a POP3 reply: {printable(line[:60])}", remedy="is this a POP3 server's port? with TLS?")
    text = printable(found[2] or b"").strip()
    coded = _CODE.match(text)
    code, text = (coded[1].upper(), coded[2]) if coded else ("", text)
    return Status(found[1].upper() == b"+OK", code, text[:TEXT_LIMIT_CHARS])


def printable(data: bytes) -> str:
    """As a person may be shown it."""
    return "".join(char if char.isprintable() else " " for char in data.decode("utf-8", "replace"))


def parse_capabilities(rows: Iterable[bytes]) -> dict[str, tuple[str, ...]]:
    """RFC 2449 5: capabilities and their arguments, in capitals."""
    words = [row.decode("ascii", "replace").upper().split() for row in rows]
    return {word[0]: tuple(word[1:]) for word in words if word}


def parse_count(text: str) -> int | None:
    """What STAT says → how many messages there are; None where it says no number (RFC 1939 5)."""
    found = _COUNT.match(text)
    return int(found[0]) if found is not None else None


def parse_sizes(rows: Iterable[bytes]) -> list[tuple[int, int]]:
    """Lines of LIST → numbers and sizes in octets. Raises PeerError for a line that has neither."""
    found = []
    for row in rows:
        number, rest = _numbered(row)
        size = _SIZE.match(rest)
        if size is None:
            raise PeerError(f"a message without a size: {printable(row[:60])}")
        found.append((number, int(size[0])))
    return found


def parse_uidls(rows: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Lines of UIDL → numbers and unique ids; an id that RFC 1939 7 does not allow is empty. Raises PeerError."""
    found = []
    for row in rows:
        number, rest = _numbered(row)
        found.append((number, rest if _UIDL.fullmatch(rest) else b""))
    return found


def _numbered(row: bytes) -> tuple[int, bytes]:
    found = _ROW.fullmatch(row)
    number = int(found[1]) if found else 0
    if found is None or not 0 < number < 2**31:
        raise PeerError(f"a line without a message's number: {printable(row[:60])}")
    return number, (found[2] or b"").strip()


def parse_banner(text: str) -> str:
    """The timestamp of a greeting, with which APOP is made (RFC 1939 7); empty where there is none."""
    found = re.search(r"<[^<>\s]+@[^<>\s]+>", text)
    return found[0] if found else ""


def command(verb: str, *arguments: str | int, limit_bytes: int = COMMAND_LIMIT_BYTES) -> bytes:
    """One command with its CRLF. Raises Permanent where an argument cannot be said."""
    line = " ".join([verb, *map(str, arguments)])
    if _UNSAYABLE.search(line):
        raise Permanent(f"a control character in what {verb} says", remedy="correct `username` or `password`")
    data = line.encode() + b"\r\n"
    if len(data) > limit_bytes:
        raise Permanent(
            f"{verb} would be longer than the {limit_bytes} bytes that POP3 allows", remedy="choose a shorter one"
        )
    return data
