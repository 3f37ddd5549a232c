"""Bytes from an IMAP server → whole responses: lines with their literals cut out. Pure.

Fed by protocol.py; what a response means is grammar.py's. Linear in the bytes, one copy of each literal.
Grammar: RFC 9051 section 4.3 (literals), section 9 (response).
"""

import re
from dataclasses import dataclass
from typing import Final

from service.errors import PeerError

# A SEARCH over a million messages answers in one line of 8 MB.
TEXT_LIMIT_BYTES: Final = 8 * 1024 * 1024
# Nothing else comes near it, and all else is read while everybody waits: all labels or keywords of a message.
LINE_LIMIT_BYTES: Final = 256 * 1024
# An envelope may hold a dozen literals, a LIST one; more of them is an attack on memory by small pieces.
PIECES_LIMIT: Final = 2_000
# By so many a response is known for what it is.
BEGIN_BYTES: Final = 16

_LITERAL: Final = re.compile(rb"~?\{(-?\d{1,20})\+?\}\Z")
_FETCH: Final = re.compile(rb"\* \d{1,10} FETCH\b", re.IGNORECASE)
_LISTING: Final = re.compile(rb"\* (?:E?SEARCH|SORT|VANISHED)\b", re.IGNORECASE)
# Text for people may end with anything: these lines have no literals (RFC 9051 section 9, resp-text).
_STATUS: Final = re.compile(rb"(?:\*|[A-Za-z0-9]+) (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """`literal_bytes`: what one FETCH may hold in literals, checked before anything is allocated.

    `text_bytes`: what a response says all messages of a mailbox in; `line_bytes`: all others, and literals beside.
    """

    literal_bytes: int
    text_bytes: int = TEXT_LIMIT_BYTES
    line_bytes: int = LINE_LIMIT_BYTES


class ResponseSplitter:
    """Give it bytes with `feed`; take responses with `next_response` until that gives None.

    A response is a list of pieces: text, literal, text, … without the literals' announcements and the last CRLF.
    """

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._data = b""
        self._at = 0
        self._fragments: list[bytes] = []  # of a line whose end has not come
        self._text_size = 0
        self._pieces: list[bytes] = []
        self._literal_size = 0
        self._chunks: list[bytes] = []  # of a literal whose end has not come
        self._missing = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left over: no byte of a next response was received."""
        return self._at >= len(self._data) and not self._fragments and not self._pieces

    def feed(self, data: bytes) -> None:
        """Take bytes as they came. All responses of what was fed before must have been taken."""
        self._data = data if self._at >= len(self._data) else self._data[self._at :] + data
        self._at = 0

    def next_response(self) -> list[bytes] | None:
        """The next whole response, or None until more is fed. Raises PeerError where a limit is passed."""
        while self._at < len(self._data):
            if self._missing:
                self._take_literal()
                continue
            line = self._take_line()
            if line is None:
                return None
            size = self._announced(line)
            if size is None:
                pieces, self._pieces = [*self._pieces, line], []
                self._text_size = self._literal_size = 0
                return pieces
            self._begin_literal(line, size)
        return None

    def _take_line(self) -> bytes | None:
        end = self._data.find(b"\n", self._at)
        # RFC 9051 2.2: lines end with CRLF; some servers send LF alone in their texts for people.
        line = self._data[self._at :] if end < 0 else self._data[self._at : end]
        self._at = len(self._data) if end < 0 else end + 1
        self._text_size += len(line)
        if self._text_size > self._limits.line_bytes:
            limit = self._limits.text_bytes if self._is_listing(line) else self._limits.line_bytes
            if self._text_size > limit:
                raise PeerError(f"a response without an end: over {limit} bytes")
        if end < 0:
            self._fragments.append(line)
            return None
        if self._fragments:
            line = b"".join([*self._fragments, line])
            self._fragments = []
        return line.removesuffix(b"\r")

    def _is_listing(self, line: bytes) -> bool:
        begin = self._pieces[:1] or [*self._fragments[:BEGIN_BYTES], line]
        return _LISTING.match(b"".join([piece[:BEGIN_BYTES] for piece in begin])) is not None

    def _announced(self, line: bytes) -> int | None:
        """The size of the literal that the line announces; None where it announces none."""
        if not line.endswith(b"}"):
            return None
        found = _LITERAL.search(line, max(0, len(line) - 32))
        if found is None or (not self._pieces and _STATUS.match(line)):
            return None
        return int(found[1])

    def _begin_literal(self, line: bytes, size: int) -> None:
        self._literal_size += size
        # Messages come in no other response: a name as long as one would be read while everybody waits.
        is_fetch = _FETCH.match(self._pieces[0] if self._pieces else line) is not None
        limit = self._limits.literal_bytes if is_fetch else self._limits.line_bytes
        if size < 0 or self._literal_size > limit:
            raise PeerError(f"a literal of {size} bytes: the limit is {limit}")
        if len(self._pieces) >= PIECES_LIMIT:
            raise PeerError(f"over {PIECES_LIMIT // 2} literals in one response")
        start = line.rindex(b"{")
        self._pieces.append(line[: start - 1] if line.endswith(b"~", 0, start) else line[:start])
        if len(self._data) - self._at >= size:
            self._pieces.append(self._data[self._at : self._at + size])
            self._at += size
        else:
            self._missing = size

    def _take_literal(self) -> None:
        chunk = self._data[self._at : self._at + self._missing] if self._at else self._data[: self._missing]
        self._at += len(chunk)
        self._missing -= len(chunk)
        self._chunks.append(chunk)
        if not self._missing:
            self._pieces.append(b"".join(self._chunks))
            self._chunks = []
