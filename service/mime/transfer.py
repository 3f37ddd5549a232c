"""A part's transfer encoding → its bytes. Pure, linear, never raises. RFC 2045 section 6."""

import re
from binascii import Error, a2b_base64, a2b_qp, a2b_uu
from io import BytesIO
from typing import Final

from pybase64 import b64decode

_WHITE: Final = b" \t\r\n\f\v"
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_ALPHABET: Final = bytes(sorted(set(range(256)) - set(_ALPHABET) - set(b"=")))
_RUN: Final = re.compile(rb"([A-Za-z0-9+/]+)(=*)")
_NOISE: Final = re.compile(rb"[^A-Za-z0-9+/=\s]")
# A line of base64 alone, as encoders fill it: no word is so long.
_LINE: Final = re.compile(rb"^[A-Za-z0-9+/]{60,}+={0,2}\r?$", re.MULTILINE)
# More pieces than any sender makes: then padding is noise and is dropped.
_PIECES: Final = 1000
# RFC 2045 6.7: "=" is followed by two hex digits or ends the line.
_BAD_ESCAPE: Final = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*+(?:\r?\n|\Z))")
# RFC 2045 6.7 rule 3: white space at a line's end was added on the way. The look-behind keeps it linear.
_TRAILING: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_IDENTITY: Final = frozenset(("", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits", "none", "identity"))


class Content:
    """Decoded bytes, and whether some of the encoded ones made no sense."""

    def __init__(self, data: bytes, damaged: bool) -> None:
        self.data = data
        self.damaged = damaged


def decode_transfer(data: bytes, encoding: str) -> Content:
    """`encoding` is the field's value, lower case, without comments. An unknown one leaves the bytes alone."""
    if encoding in _IDENTITY:
        return Content(data, damaged=False)
    if encoding == "base64":
        return decode_base64(data)
    if encoding in ("quoted-printable", "quotedprintable", "quoted-printeable"):
        return _decode_qp(data)
    if encoding in ("x-uuencode", "uuencode", "x-uue"):
        return _decode_uu(data)
    return Content(data, damaged=True)


def decode_base64(data: bytes) -> Content:
    """Whole and even lines are proved by arithmetic [pybase64 0.2 ns a byte, binascii 1.4]; all else is looked at."""
    try:
        out: bytes = b64decode(data)
    except (Error, ValueError):
        return base64_lenient(data)
    if len(out) == _expected(data):
        return Content(out, damaged=False)
    return base64_lenient(data)


def _expected(data: bytes) -> int:
    """Length of the decoded bytes if every line but the last is as long as the first; -1 if it cannot be told."""
    end = len(data)
    while end and data[end - 1] in _WHITE:
        end -= 1
        if len(data) - end > 64:
            return -1
    line = data.find(b"\n", 0, end)
    if line < 0:
        chars = end
    else:
        width = line + 1
        eol = 2 if line and data[line - 1] == 13 else 1
        chars = end - (end // width) * eol if end % width else -1
    padding = 2 if data.endswith(b"==", 0, end) else data.endswith(b"=", 0, end)
    return chars // 4 * 3 - padding if chars >= 0 and chars % 4 == 0 else -1


def base64_lenient(data: bytes) -> Content:
    """What can be had from base64 with noise, lost padding, or several encodings one after another."""
    plain = data.translate(None, _WHITE)
    noise = plain.translate(None, _ALPHABET + b"=")
    damaged = bool(noise)
    if noise and (end := _footer(data)):
        plain = data[:end].translate(None, _WHITE)
        noise = plain.translate(None, _ALPHABET + b"=")
    out: list[bytes] = []
    for count, run in enumerate(_RUN.finditer(plain if not noise else plain.translate(None, _NOT_ALPHABET))):
        if count and noise:
            break  # text after the end, such as a mailing list's footer, is no base64
        if count >= _PIECES:
            return Content(_quads(plain.translate(None, _NOT_ALPHABET + b"="))[0], damaged=True)
        uneven = len(run[1]) % 4 + len(run[2]) not in (0, 4)
        if count and uneven:
            damaged = True
            break  # words after the end, not another encoding
        piece, lost = _quads(run[1])
        out.append(piece)
        damaged = damaged or lost or uneven
    return Content(b"".join(out), damaged or bool(plain and not out))


def _footer(data: bytes) -> int:
    """Where an empty line parts the base64 from words that a mailing list put below it; 0 where none does."""
    start = 0
    for line in _LINE.finditer(data):
        start = line.end()  # an empty line above it parts nothing: something on the way spaced the lines out
    found = _NOISE.search(data, start)
    if found is None:
        return 0
    end = max(data.rfind(b"\n\n", start, found.start()), data.rfind(b"\n\r\n", start, found.start()), 0)
    return end if data[:end].strip() else 0


def _quads(chars: bytes) -> tuple[bytes, bool]:
    rest = len(chars) % 4
    if rest == 1:  # six bits are no byte
        return a2b_base64(chars[:-1]), True
    return a2b_base64(chars + b"=" * (-len(chars) % 4)), False


def _decode_qp(data: bytes) -> Content:
    if b" \r\n" in data or b" \n" in data or b"\t\r\n" in data or b"\t\n" in data:
        data = _TRAILING.sub(b"", data)
    return Content(a2b_qp(data), damaged=_BAD_ESCAPE.search(data) is not None)


def _decode_uu(data: bytes) -> Content:
    # Line by line: all lines of a mail of many short ones would take forty times its size.
    out = bytearray()
    damaged = True
    started = False
    for line in BytesIO(data):
        if not started:
            started = line.startswith(b"begin ")
        elif line.strip() in (b"end", b"`", b""):
            damaged = False
            if line.strip() == b"end":
                break
        else:
            try:
                out += a2b_uu(line)
            except Error:
                damaged = True
                try:  # some encoders pad the line's end wrongly; its first byte says how much counts
                    out += a2b_uu(line[: (((line[0] - 32) & 63) * 4 + 5) // 3])
                except Error:
                    continue
    return Content(bytes(out), damaged) if started else Content(data, damaged=True)
