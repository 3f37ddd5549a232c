"""A TNEF stream (winmail.dat of Outlook and Exchange) → the files and bodies in it. Pure, linear, never raises.

Microsoft's [MS-OXTNEF] for the stream, [MS-OXRTFCP] for compressed RTF. Lengths are checked before anything is taken;
what goes beyond the stream's end, or beyond the limits, ends the reading there.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

_SIGNATURE: Final = 0x223E9F78
# [MS-OXTNEF] 2.1.3.2.
_BODY: Final = 0x0002800C
_ATTACH_TITLE: Final = 0x00018010
_ATTACH_DATA: Final = 0x0006800F
_ATTACH_BEGIN: Final = 0x00069002
_ATTACH_PROPS: Final = 0x00069005
_MESSAGE_PROPS: Final = 0x00069003
_CODEPAGE: Final = 0x00069007
# [MS-OXPROPS]: the few properties that are files, bodies or their names.
_PR_BODY, _PR_RTF, _PR_HTML = 0x1000, 0x1009, 0x1013
_PR_DATA, _PR_DISPLAY_NAME, _PR_LONG_NAME, _PR_MIME, _PR_SHORT_NAME, _PR_CID = (
    0x3701,
    0x3001,
    0x3707,
    0x370E,
    0x3704,
    0x3712,
)
_STRING8, _UNICODE, _OBJECT, _BINARY = 0x1E, 0x1F, 0x0D, 0x102
_FIXED: Final = {0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
# An object begins with the identity of its interface; what comes then is the file, or another TNEF stream.
_IID_BYTES: Final = 16
_PROPERTIES: Final = 4096
_HEAD: Final = struct.Struct("<BII")
_U32: Final = struct.Struct("<I")
_U16U16: Final = struct.Struct("<HH")
_RTF_HEAD: Final = struct.Struct("<IIII")
_LZFU, _MELA = 0x75465A4C, 0x414C454D
# [MS-OXRTFCP] 2.1.3.1: what the dictionary begins with.
_PRELOAD: Final = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"SymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


@dataclass(slots=True)
class Inside:
    """A file or a body. `name` is "" and `type` is "" where the stream does not say."""

    data: bytes
    name: str = ""
    type: str = ""
    cid: str = ""


@dataclass(slots=True)
class Stream:
    """What was found, and whether a limit or a broken length ended it; `rtf_bytes`: of RTF that was compressed."""

    files: list[Inside] = field(default_factory=list)
    bodies: list[Inside] = field(default_factory=list)
    cut: bool = False
    rtf_bytes: int = 0

    def add_body(self, body: Inside, most: int) -> None:
        """One more, if it is not one too many."""
        if len(self.bodies) < most:
            self.bodies.append(body)
        else:
            self.cut = True


def read_tnef(data: bytes, *, files: int, rtf_bytes: int) -> Stream:
    """At most `files` files, and as many bodies; compressed RTF of at most `rtf_bytes` in all."""
    found = Stream()
    if len(data) < 6 or _U32.unpack_from(data)[0] != _SIGNATURE:
        found.cut = True
        return found
    at, codec = 6, "cp1252"
    current: Inside | None = None
    while at + _HEAD.size <= len(data):
        level, attribute, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if level not in (1, 2) or at + length > len(data):
            found.cut = True
            break
        value = data[at : at + length]
        at += length + 2  # its checksum: a wrong one says nothing that the lengths do not
        if attribute == _CODEPAGE and length >= 4:
            codec = _codec(_U32.unpack_from(value)[0])
        elif attribute == _ATTACH_BEGIN:
            if len(found.files) >= files:
                found.cut = True
                break
            current = Inside(b"")
            found.files.append(current)
        elif attribute == _ATTACH_DATA and current is not None:
            current.data = value
        elif attribute == _ATTACH_TITLE and current is not None:
            current.name = current.name or _text(value, codec)
        elif attribute == _ATTACH_PROPS and current is not None:
            _attachment(value, current, codec)
        elif attribute == _BODY and value.strip(b"\0"):
            found.add_body(Inside(_text(value, codec).encode(), "message.txt", "text/plain"), files)
        elif attribute == _MESSAGE_PROPS:
            _message(value, found, codec, files, rtf_bytes)
    return found


def _codec(page: int) -> str:
    name = f"cp{page}"
    try:
        b"".decode(name)
    except LookupError:
        return "cp1252"
    return name


def _text(value: bytes, codec: str) -> str:
    return value.split(b"\0", 1)[0].decode(codec, "replace")


def _wide(value: bytes) -> str:
    return value[: len(value) & ~1].decode("utf-16-le", "replace").split("\0", 1)[0]


def _attachment(block: bytes, current: Inside, codec: str) -> None:
    names: dict[int, str] = {}
    for prop, kind, value in _properties(block):
        if prop in (_PR_LONG_NAME, _PR_DISPLAY_NAME, _PR_MIME, _PR_SHORT_NAME, _PR_CID):
            names[prop] = _wide(value) if kind == _UNICODE else _text(value, codec)
        elif prop == _PR_DATA and len(value) > len(current.data):
            current.data = value[_IID_BYTES:] if kind == _OBJECT else value
    current.name = (
        names.get(_PR_LONG_NAME) or current.name or names.get(_PR_SHORT_NAME) or names.get(_PR_DISPLAY_NAME) or ""
    )
    current.type = names.get(_PR_MIME, "").strip().lower()
    current.cid = names.get(_PR_CID, "").strip("<> ")


def _message(block: bytes, found: Stream, codec: str, files: int, rtf_bytes: int) -> None:
    for prop, kind, value in _properties(block):
        if prop == _PR_HTML and value.strip(b"\0"):
            found.add_body(Inside(value.rstrip(b"\0"), "message.html", "text/html"), files)
        elif prop == _PR_BODY and value.strip(b"\0"):
            text = _wide(value) if kind == _UNICODE else _text(value, codec)
            found.add_body(Inside(text.encode("utf-8", "replace"), "message.txt", "text/plain"), files)
        elif prop == _PR_RTF:
            rtf = decompress_rtf(value, most=rtf_bytes - found.rtf_bytes)
            if rtf is None:
                found.cut = True
            elif rtf:
                found.rtf_bytes += len(rtf)
                found.add_body(Inside(rtf, "message.rtf", "application/rtf"), files)


def _properties(block: bytes) -> list[tuple[int, int, bytes]]:
    """[MS-OXTNEF] 2.1.3.4: id, type and first value of each property, up to the first that is broken."""
    out: list[tuple[int, int, bytes]] = []
    if len(block) < 4:
        return out
    count, at, size = min(_U32.unpack_from(block)[0], _PROPERTIES), 4, len(block)
    for _ in range(count):
        if at + 4 > size:
            break
        kind, prop = _U16U16.unpack_from(block, at)
        at += 4
        if prop >= 0x8000:
            # A named property: its set's GUID, then a number or a name.
            if at + 24 > size:
                break
            named, number = _U32.unpack_from(block, at + 16)[0], _U32.unpack_from(block, at + 20)[0]
            at += 24
            if named:
                at += _padded(number)
        base = kind & ~0x1000
        fixed = _FIXED.get(base)
        values = 1
        if kind & 0x1000 or fixed is None:
            if at + 4 > size:
                break
            values = _U32.unpack_from(block, at)[0]
            at += 4
        if fixed is not None:
            if values > size or at + fixed * values > size:
                break
            out.append((prop, base, block[at : at + fixed]))
            at += fixed * values
            continue
        if base not in (_STRING8, _UNICODE, _OBJECT, _BINARY):
            break
        for index in range(values):
            if at + 4 > size:
                return out
            length = _U32.unpack_from(block, at)[0]
            at += 4
            if at + length > size:
                return out
            if not index:
                out.append((prop, base, block[at : at + length]))
            at += _padded(length)
    return out


def _padded(length: int) -> int:
    return length + 3 & ~3


def decompress_rtf(data: bytes, *, most: int) -> bytes | None:
    """[MS-OXRTFCP]; None where it is none, or longer than `most`."""
    if len(data) < _RTF_HEAD.size:
        return None
    _, raw_size, magic, _ = _RTF_HEAD.unpack_from(data)
    if raw_size > most:
        return None
    if magic == _MELA:
        return data[_RTF_HEAD.size : _RTF_HEAD.size + raw_size]
    if magic != _LZFU:
        return None
    window = bytearray(4096)
    window[: len(_PRELOAD)] = _PRELOAD
    write, at, end = len(_PRELOAD), _RTF_HEAD.size, len(data)
    out = bytearray()
    while at < end and len(out) < raw_size:
        control = data[at]
        at += 1
        for bit in range(8):
            if at >= end or len(out) >= raw_size:
                break
            if not control >> bit & 1:
                byte = data[at]
                at += 1
                out.append(byte)
                window[write] = byte
                write = (write + 1) & 4095
                continue
            if at + 1 >= end:
                return bytes(out)
            reference = data[at] << 8 | data[at + 1]
            at += 2
            offset = reference >> 4
            if offset == write:
                return bytes(out)  # the end is said by a reference to itself
            for _ in range((reference & 15) + 2):
                byte = window[offset]
                out.append(byte)
                window[write] = byte
                offset, write = (offset + 1) & 4095, (write + 1) & 4095
    return bytes(out[:raw_size])
