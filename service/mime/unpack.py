"""Files within texts (uuencode, yEnc) and within winmail.dat (TNEF) → files of their own. Pure, linear, never raises.

What they came in stays as it is. Archives are not opened: they may hold a thousand times their size.
"""

import re
from dataclasses import dataclass
from typing import Final

from service.mime.kinds import type_of
from service.mime.tnef import Inside, read_tnef
from service.mime.transfer import decode_transfer

TNEF_TYPES: Final = frozenset(("application/ms-tnef", "application/vnd.ms-tnef"))
_TNEF_NAMES: Final = ("winmail.dat", "win.dat")
_UU: Final = re.compile(rb"^begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,255})\r?\n", re.MULTILINE)
_UU_END: Final = re.compile(rb"^(?:end|====)[ \t]*\r?$", re.MULTILINE)
_YENC: Final = re.compile(
    rb"^=ybegin (?:[a-z]+=[0-9]+ ){1,5}name=([^\r\n]{1,255})\r?\n(?:=ypart [^\r\n]{1,100}\r?\n)?", re.MULTILINE
)
_YENC_END: Final = re.compile(rb"^=yend size=([0-9]{1,12})", re.MULTILINE)
_ESCAPE: Final = ord("=")
_WINDOW: Final = 16 * 1024
_MINUS_42: Final = bytes((byte - 42) & 255 for byte in range(256))


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was inside, whether there was more than the limits allow, and how much of it was compressed RTF."""

    files: list[Inside]
    cut: bool
    rtf_bytes: int = 0


def is_tnef(kind: str, name: str | None) -> bool:
    """Whether a part is one of Outlook's envelopes."""
    return kind in TNEF_TYPES or (name is not None and name.lower() in _TNEF_NAMES)


def unpack_tnef(data: bytes, *, most: int, rtf_bytes: int) -> Unpacked:
    """Files and bodies of a TNEF stream; bodies first. `rtf_bytes`: what all its compressed RTF may have."""
    stream = read_tnef(data, files=most, rtf_bytes=rtf_bytes)
    files = [*stream.bodies, *(one for one in stream.files if one.data)]
    for one in files:
        one.type = one.type if "/" in one.type else type_of(one.data)
    return Unpacked(files[:most], stream.cut or len(files) > most, stream.rtf_bytes)


def has_files(data: bytes) -> bool:
    """Whether a text may hold files; nearly none does."""
    # One look for what all three forms have takes a third of the time of three.
    return b"begin" in data


def unpack_text(data: bytes, *, most: int) -> Unpacked:
    """Files within a text, in their order."""
    files: list[Inside] = []
    uu, yenc = _UU.search(data), _YENC.search(data)
    while True:
        if uu is None and yenc is None:
            return Unpacked(files, cut=False)
        if len(files) >= most:
            return Unpacked(files, cut=True)
        if uu is not None and (yenc is None or uu.start() < yenc.start()):
            found = _uuencoded(data, uu)
        elif yenc is not None:
            found = _yencoded(data, yenc)
        if found is None:
            # Without its end it is no file, and neither is what begins later.
            return Unpacked(files, cut=False)
        if found.file is not None:
            files.append(found.file)
        # What was looked for once and stands further on is not looked for again: the whole is one pass.
        if uu is not None and uu.start() < found.end:
            uu = _UU.search(data, found.end)
        if yenc is not None and yenc.start() < found.end:
            yenc = _YENC.search(data, found.end)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, None where it only looked like one, and where to look on."""

    file: Inside | None
    end: int


def _uuencoded(data: bytes, begin: re.Match[bytes]) -> _Found | None:
    end = _UU_END.search(data, begin.end())
    if end is None:
        return None
    if begin[0].startswith(b"begin-base64"):
        content = decode_transfer(data[begin.end() : end.start()], "base64")
    else:
        content = decode_transfer(data[begin.start() : end.end()], "x-uuencode")
    if content.damaged or not content.data:
        return _Found(None, end.end())
    return _Found(_file(begin[1], content.data), end.end())


def _yencoded(data: bytes, begin: re.Match[bytes]) -> _Found | None:
    end = _YENC_END.search(data, begin.end())
    if end is None:
        return None
    content = _yenc(data[begin.end() : end.start()])
    # yEnc 1.3: a size that does not agree is a damaged file.
    return _Found(_file(begin[1], content) if len(content) == int(end[1]) else None, end.end())


def _file(name: bytes, data: bytes) -> Inside:
    return Inside(data, name.strip(b' "').decode("utf-8", "replace").replace("\0", ""), type_of(data))


def _yenc(lines: bytes) -> bytes:
    """Each byte is its value and 42; a byte after `=` has 64 more."""
    plain = lines.translate(None, b"\r\n")
    out = bytearray()
    at, size = 0, len(plain)
    while at < size:
        # A window at a time: a file of escapes alone would take fifty times its size in pieces.
        end = min(at + _WINDOW, size)
        if plain[end - 1] == _ESCAPE:
            end += 1  # with the byte that it escapes
        first, *escaped = plain[at:end].split(b"=")
        out += first.translate(_MINUS_42)
        for piece in escaped:
            if piece:
                out.append((piece[0] - 106) & 255)
                out += piece[1:].translate(_MINUS_42)
        at = end
    return bytes(out)
