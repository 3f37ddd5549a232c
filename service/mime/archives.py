"""An archive or document → whether it can be read without a password. Pure, linear; nothing is expanded.

ZIP: PKWARE's APPNOTE 4.3.12 and 4.4.4; RAR: the technical notes of 4.x and 5.0; 7z: 7zFormat.txt; PDF: ISO 32000 7.6;
Office: [MS-OFFCRYPTO] 2.3.2. Where a list of files is itself packed, nothing is said.
"""

import re
import struct
from typing import Final

_END_OF_ZIP: Final = b"PK\x05\x06"
# Of an entry of the central directory: its signature, its flags, the lengths of name, extra field and comment.
_ENTRY: Final = struct.Struct("<4s4xH18xHHH12x")
_ENTRY_SIGN: Final = b"PK\x01\x02"
# A ZIP's last record begins within this of its end: its comment has 65,535 bytes at the most.
_TAIL: Final = 65_557
# Of a larger archive the first files may tell that it is encrypted, and not that it is not.
_FILES: Final = 1000
_ENCRYPTED: Final = 1  # APPNOTE 4.4.4, bit 0
_RAR4: Final = b"Rar!\x1a\x07\x00"
_RAR5: Final = b"Rar!\x1a\x07\x01\x00"
_RAR4_BLOCK: Final = struct.Struct("<2xBHH")
_RAR4_MAIN, _RAR4_FILE, _RAR4_LONG = 0x73, 0x74, 0x8000
_RAR4_PASSWORD: Final = {_RAR4_MAIN: 0x80, _RAR4_FILE: 0x04}
_RAR5_FILE, _RAR5_LOCKED, _RAR5_EXTRA, _RAR5_DATA = 2, 4, 1, 2
_SEVEN_HEAD: Final = struct.Struct("<12xQQ4x")
_SEVEN_PLAIN: Final = 0x01  # kHeader: the list of files as it is
_SEVEN_AES: Final = b"\x06\xf1\x07\x01"
_PDF: Final = re.compile(rb"/Encrypt\s{0,8}(?:\d{1,10}\s{1,8}\d{1,5}\s{1,8}R|<<)")
_OFFICE: Final = "EncryptedPackage".encode("utf-16-le")


def is_encrypted(data: bytes, kind: str) -> bool | None:
    """`kind`: by content (see kinds.py). None for what is no archive, and where it cannot be told."""
    if data.startswith(b"PK"):
        return _zip(data)
    if kind == "application/x-7z-compressed":
        return _seven(data)
    if kind == "application/vnd.rar":
        return _rar4(data) if data.startswith(_RAR4) else _rar5(data)
    if kind == "application/pdf":
        return True if _PDF.search(data) is not None else None
    if kind == "application/x-ole-storage":
        return True if _OFFICE in data else None
    return None


def _zip(data: bytes) -> bool | None:
    end = data.rfind(_END_OF_ZIP, max(len(data) - _TAIL, 0))
    if end < 0 or end + 16 > len(data):
        return None
    # The directory ends where this record begins, whatever stands before the archive.
    at = end - int.from_bytes(data[end + 12 : end + 16], "little")
    if at < 0:
        return None
    for _ in range(_FILES):
        if at + _ENTRY.size > end:
            return False
        sign, flags, name, extra, comment = _ENTRY.unpack_from(data, at)
        if sign != _ENTRY_SIGN:
            return None
        if flags & _ENCRYPTED:
            return True
        at += _ENTRY.size + name + extra + comment
    return None


def _seven(data: bytes) -> bool | None:
    if len(data) < 32:
        return None
    offset, size = _SEVEN_HEAD.unpack_from(data)
    header = data[32 + offset : 32 + offset + size] if offset < len(data) else b""
    if _SEVEN_AES in header:
        return True
    return False if header[:1] == bytes((_SEVEN_PLAIN,)) else None


def _rar4(data: bytes) -> bool | None:
    at = len(_RAR4)
    for _ in range(_FILES):
        if at + 11 > len(data):
            return False
        kind, flags, size = _RAR4_BLOCK.unpack_from(data, at)
        if flags & _RAR4_PASSWORD.get(kind, 0):
            return True
        if size < 7:
            return None
        long = kind == _RAR4_FILE or flags & _RAR4_LONG
        at += size + (int.from_bytes(data[at + 7 : at + 11], "little") if long else 0)
    return None


def _rar5(data: bytes) -> bool | None:
    at = len(_RAR5)
    for _ in range(_FILES):
        if at + 7 > len(data):
            return False
        size, start = _vint(data, at + 4)
        end = start + size
        kind, at = _vint(data, start)
        if kind == _RAR5_LOCKED:
            return True
        flags, at = _vint(data, at)
        extra = body = 0
        if flags & _RAR5_EXTRA:
            extra, at = _vint(data, at)
        if flags & _RAR5_DATA:
            body, at = _vint(data, at)
        if size < 2 or end > len(data):
            return None
        # The extra area ends the header: records of a length and a type; 1 is encryption.
        record = end - extra
        while kind == _RAR5_FILE and start <= record < end:
            length, inside = _vint(data, record)
            if _vint(data, inside)[0] == 1:
                return True
            record = inside + max(length, 1)
        at = end + body
    return None


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    for byte in data[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
        shift += 7
    return value, at
