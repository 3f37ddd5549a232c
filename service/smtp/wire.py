"""Bytes from a relay → replies; envelopes and messages → bytes. Pure.

Fed by session.py, tested by tests/smtp/test_wire.py. Knows no account and no connection.
Grammar: RFC 5321 sections 4.1 and 4.2; enhanced codes: RFC 3463; parameters: RFC 1870, 6152, 6531; chunks: RFC 3030.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from service.errors import PeerError, Permanent

# RFC 5321 4.5.3.1.5: a reply line holds 512 octets at most; real EHLO answers and diagnostics are longer.
LINE_LIMIT_BYTES: Final = 8 * 1024
REPLY_LIMIT_BYTES: Final = 64 * 1024
# What of a reply's text is kept: it goes into every status event.
TEXT_LIMIT_CHARS: Final = 512
# Up to this length a copy without line ends takes a fifth of counting them.
COPIED_BYTES: Final = 64 * 1024
# A relay says the same few words to each mail: lines up to this length are read once.
SAME_BYTES: Final = 128

_LINE: Final = re.compile(rb"([2-5][0-9]{2})([ -]?)(.*)", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")  # RFC 3463 section 2
# RFC 5321 4.1.2: neither controls nor white space stand in an address here; < and > would end the path.
_PATH_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\x9f<>\s]|[\ud800-\udfff]")
# But for spaces within quotes.
_QUOTED_LOCAL: Final = re.compile(r'"(?:[^"\\]|\\.)*"(?=@)')
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
# RFC 1870 section 4: up to 20 digits; no mail is as long as 18 say.
_SIZE: Final = re.compile(r"[0-9]{1,18}")
# RFC 5322 2.2.3, 3.6.2, 3.6.3, 3.6.6.
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
_ADDRESSES: Final = re.compile(rb"(?:resent-)?(?:from|sender|reply-to|to|cc)[ \t]*:", re.IGNORECASE)
# A CR not before LF, or an LF not after CR. RFC 5321 2.3.8: neither may be sent but as CRLF.
_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a relay said: `code` of RFC 5321 4.2, `enhanced` of RFC 3463 or None, `text` in one line.

    `of_recipient`: it answers RCPT, or is one of LMTP's to the message; otherwise it is about who sends, or what.
    """

    code: int
    enhanced: str | None
    text: str
    of_recipient: bool = False

    @property
    def accepted(self) -> bool:
        """2yz: done."""
        return 200 <= self.code < 300

    @property
    def transient(self) -> bool:
        """4yz: try again."""
        return 400 <= self.code < 500

    @property
    def refused(self) -> bool:
        """5yz: do not try again."""
        return self.code >= 500

    @property
    def overfull(self) -> bool:
        """To a recipient among accepted ones: the transaction has as many as it may (RFC 5321 4.5.3.1.10)."""
        return self.code == 452 or (self.code == 552 and self.enhanced in (None, "5.5.3"))

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


class ReplyParser:
    """Cuts replies out of what comes; remembers how far it has looked, so a slow sender costs O(n)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._code = b""

    @property
    def pending(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Every reply that is whole now. Raises PeerError on what is no reply, or one too long."""
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                if self._searched > LINE_LIMIT_BYTES:
                    raise PeerError(f"a reply line longer than {LINE_LIMIT_BYTES} bytes")
                return
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._searched = 0
            if (reply := self._line(line)) is not None:
                yield reply

    def _line(self, line: bytes) -> Reply | None:
        if not self._lines and len(line) <= SAME_BYTES and (reply := _of_one_line(line)) is not None:
            return reply
        found = _LINE.fullmatch(line)
        if found is None or len(line) > LINE_LIMIT_BYTES:
            raise PeerError(f"not an SMTP reply: {line[:60]!r}")
        code, mark, text = found.groups()
        # RFC 5321 4.2.1: the code is the same on each line of a reply.
        if self._lines and code != self._code:
            raise PeerError(f"a reply changed its code from {self._code.decode()} to {code.decode()}")
        self._code = code
        self._size += len(line)
        if self._size > REPLY_LIMIT_BYTES:
            raise PeerError(f"a reply longer than {REPLY_LIMIT_BYTES} bytes")
        self._lines.append(text)
        if mark == b"-":
            return None
        lines, self._lines, self._size = self._lines, [], 0
        return make_reply(int(code), [text.decode("utf-8", "replace") for text in lines])


@lru_cache(maxsize=256)
def _of_one_line(line: bytes) -> Reply | None:
    found = _LINE.fullmatch(line)
    if found is None or found[2] == b"-":
        return None
    return make_reply(int(found[1]), [found[3].decode("utf-8", "replace")])


def make_reply(code: int, lines: list[str]) -> Reply:
    """A reply of its lines' texts; the enhanced code of the first line is cut from all of them."""
    found = _ENHANCED.match(lines[0]) if lines else None
    enhanced = found[1] if found else None
    if enhanced:
        lines = [line.removeprefix(enhanced) for line in lines]
    return Reply(code, enhanced, printable(" ".join(lines))[:TEXT_LIMIT_CHARS])


def printable(text: str) -> str:
    """A relay's words in one line of printable characters: what is no UTF-8 goes into no event."""
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def size_limit(said: str) -> int | None:
    """How long a mail may be, by what stands behind SIZE; None where that is no limit."""
    # RFC 1870 section 4: 0 or nothing is none. What is no number is none either.
    found = _SIZE.fullmatch(said.strip())
    return int(found[0]) or None if found else None


def mail_command(address: str, parameters: Mapping[str, str | None]) -> bytes:
    """MAIL FROM with its parameters; the empty address is the null reverse-path. Raises Permanent."""
    return f"MAIL FROM:<{checked_path(address)}>{_given(parameters)}\r\n".encode()


def _given(parameters: Mapping[str, str | None]) -> str:
    given = "".join(f" {name}={value}" if value is not None else f" {name}" for name, value in parameters.items())
    if _CONTROLS.search(given):
        raise Permanent("a parameter of the envelope holds a control", remedy="correct the parameter")
    return given


def rcpt_command(address: str, parameters: Mapping[str, str | None]) -> bytes:
    """RCPT TO with its parameters. Raises Permanent."""
    if not address:
        raise Permanent("an empty recipient address")
    return f"RCPT TO:<{checked_path(address)}>{_given(parameters)}\r\n".encode()


def checked_path(address: str) -> str:
    """The address, if nothing in it can end the path or the command. Raises Permanent."""
    quoted = _QUOTED_LOCAL.match(address)
    plain = quoted[0].replace(" ", "") + address[quoted.end() :] if quoted else address
    if _PATH_FORBIDDEN.search(plain):
        raise Permanent("an address holds CR, LF, NUL, a control, white space, < or >", remedy="correct the address")
    return address


def has_utf8_header(data: bytes, *, of_addresses: bool = False) -> bool:
    """Whether a message's header is UTF-8 beyond ASCII (RFC 6532). One with other 8-bit bytes is of no standard.

    `of_addresses`: whether one of the fields is that hold addresses.
    """
    end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n")
    header = data if end < 0 else data[:end]
    if header.isascii():
        return False
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    lines = _FOLD.sub(b"", header).split(b"\r\n") if of_addresses else []
    return not of_addresses or any(_ADDRESSES.match(line) and not line.isascii() for line in lines)


def bare_line_end(data: bytes) -> int | None:
    """Where a CR or LF stands that is no CRLF; None if nowhere."""
    if len(data) <= COPIED_BYTES:
        left = data.replace(b"\r\n", b"")
        if b"\r" not in left and b"\n" not in left:
            return None
    # Counting is ten times faster than searching, and nearly every message is clean.
    elif data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n"):
        return None
    found = _BARE.search(data)
    return found.start() if found else None


def ended(data: bytes) -> bytes:
    """A message as it goes in chunks, which are counted: as it is, with the end of its last line. Raises Permanent."""
    # A bare CR or LF is where one server sees the end of a message and the next does not.
    if (place := bare_line_end(data)) is not None:
        raise Permanent(f"a bare CR or LF at byte {place} of the message", remedy="lines end with CRLF")
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def stuffed(data: bytes) -> bytes:
    """A message as it goes behind DATA, without the final dot line. Raises Permanent.

    RFC 5321 4.5.2: a line that begins with a dot gets another. Linear; no copy where there is no such line.
    """
    body = ended(data)
    if b"\n." in body:
        body = body.replace(b"\n.", b"\n..")
    return b"." + body if body.startswith(b".") else body
