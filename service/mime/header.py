"""The bytes of a header → its fields. Pure, linear, never raises. RFC 5322 section 2.2, read leniently.

Raw values are RFC 8621 4.1.2.1's: everything after the colon, folds included, NUL dropped, what is not
UTF-8 replaced. `values` is for our own reading: there 8-bit bytes are decoded by the charset they look like.
"""

import re
from functools import lru_cache
from typing import Final

from service.contract import EmailHeader
from service.mime.charset import guess_codec
from service.mime.limits import MimeLimits

# The CR before it is taken off each piece: an expression that begins with a plain character is five times as fast.
_FIELD_BREAK: Final = re.compile(r"\n(?![ \t])")
_FIELD_BREAK_BYTES: Final = re.compile(rb"\n(?![ \t])")
_BLANK_LINE: Final = re.compile(rb"\n\r{0,2}\n")
# RFC 5322 3.6.8: printable ASCII without the colon.
_NAME: Final = re.compile(r"[!-9;-~]+\Z")
# RFC 5322 2.1.1 lets a line have 998 characters; no field is named like that. Longer ones would fill the cache.
_NAME_CHARS: Final = 255
_FIRST_COUNTS: Final = frozenset(("content-type", "content-transfer-encoding", "content-disposition"))
_MBOX: Final = ("From ", ">From ")  # the line that mbox files put first
# Nearly every header ends within this; searching it first keeps the search linear whatever the line ends.
_WINDOW: Final = 16 * 1024


class HeaderEnd:
    """Where the header's last line ends and where the body begins."""

    def __init__(self, header: int, body: int) -> None:
        self.header = header
        self.body = body


class Header:
    """Fields in order, and one value of each name.

    RFC 8621 4.1.3: of several the last counts. Of several Content fields the first does, as mail programs have it.
    """

    def __init__(self) -> None:
        self.fields: list[EmailHeader] = []
        self.values: dict[str, str] = {}
        self.junk = False  # lines that are no fields were left out
        self.cut = False  # fields beyond the limits were left out
        self.twice = False  # a field that says how to read the body contradicts itself


def find_end(raw: bytes, start: int, end: int) -> HeaderEnd:
    """The header that begins at `start`: it ends at the first empty line, or at `end` without one."""
    if raw.startswith(b"\n", start, end):
        return HeaderEnd(start, start + 1)
    if raw.startswith(b"\r\n", start, end):
        return HeaderEnd(start, start + 2)
    window = min(end, start + _WINDOW)
    crlf = raw.find(b"\n\r\n", start, window)
    bare = raw.find(b"\n\n", start, crlf if crlf >= 0 else window)
    if bare >= 0:
        return HeaderEnd(bare + 1, bare + 2)
    if crlf >= 0:
        return HeaderEnd(crlf + 1, crlf + 3)
    if found := _BLANK_LINE.search(raw, start, end):
        return HeaderEnd(found.start() + 1, found.end())
    return HeaderEnd(end, end)


@lru_cache(maxsize=2048)
def _key(name: str) -> str:
    """The name in lower case, "" for what cannot be a field's name. `name` has at most _NAME_CHARS."""
    name = name.rstrip()  # RFC 5322 4.5 allowed white space before the colon
    return name.lower() if _NAME.match(name) else ""


def parse_header(block: bytes, limits: MimeLimits) -> Header:
    """All fields of the bytes before the empty line."""
    header = Header()
    if len(block) > limits.header_bytes:
        # Cut at a line, unless there is only one.
        last = block.rfind(b"\n", 0, limits.header_bytes)
        block = block[: last if last > 0 else limits.header_bytes]
        header.cut = True
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        return _parse_8bit(block, header, limits)
    if "\0" in text:
        text = text.replace("\0", "")
    lines = _FIELD_BREAK.split(text)
    if len(lines) > limits.header_count:
        del lines[limits.header_count :]
        header.cut = True
    values, fields = header.values, header.fields
    for line in lines:
        name, colon, value = line.partition(":")
        key = _key(name) if colon and len(name) <= _NAME_CHARS else ""
        if not key:
            header.junk = header.junk or not (line.isspace() or not line or line.startswith(_MBOX))
            continue
        value = value.rstrip("\r")
        fields.append(EmailHeader(name if len(name) == len(key) else name.rstrip(), value))
        if key in _FIRST_COUNTS:
            header.twice = header.twice or values.setdefault(key, value).strip() != value.strip()
        else:
            values[key] = value
    return header


def first_junk(block: bytes) -> int:
    """Where the first line begins that is neither a field nor empty: the body, if no empty line came before it."""
    at, size = 0, len(block)
    while at < size:
        # One after another: all lines of a mail that is one long header would take ten times its size.
        found = _FIELD_BREAK_BYTES.search(block, at)
        end = found.start() if found is not None else size
        name, colon, _ = block[at : min(at + _NAME_CHARS + 1, end)].decode("latin-1").partition(":")
        if not (colon and _key(name)) and not name.startswith(_MBOX) and block[at:end].strip():
            return at
        at = end + 1
    return size


def _parse_8bit(block: bytes, header: Header, limits: MimeLimits) -> Header:
    codec = guess_codec(block)
    for line in _FIELD_BREAK_BYTES.split(block):
        name, colon, value = line.partition(b":")
        shown = name.decode("latin-1")
        key = _key(shown) if colon and len(shown) <= _NAME_CHARS else ""
        if not key:
            header.junk = header.junk or not (line.isspace() or not line or line.startswith((b"From ", b">From ")))
            continue
        if len(header.fields) >= limits.header_count:
            header.cut = True
            break
        value = value.rstrip(b"\r")
        raw = value.decode("utf-8", "replace").replace("\0", "")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode(codec, "replace")
        header.fields.append(EmailHeader(shown.rstrip(), raw))
        text = text.replace("\0", "")
        if key in _FIRST_COUNTS:
            header.twice = header.twice or header.values.setdefault(key, text).strip() != text.strip()
        else:
            header.values[key] = text
    return header
