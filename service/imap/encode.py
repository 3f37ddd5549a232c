"""Values → what a command says on the wire, and mailbox names both ways. Pure; the only encoder of this room.

RFC 9051 section 9 (quoted, sequence-set), RFC 3501 5.1.3 (modified UTF-7), RFC 6855 (UTF8=ACCEPT).
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from service.errors import Permanent

_BREAKS: Final = re.compile(r"[\r\n\0]")
_SHIFTED: Final = re.compile(rb"&([^-]*)-")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


def quoted(text: str, *, field: str) -> str:
    """RFC 9051 section 9, quoted. Raises Permanent naming `field` where CR, LF or NUL is inside."""
    if _BREAKS.search(text):
        raise Permanent("CR, LF and NUL cannot be sent to a mail server", where=field, remedy="correct the value")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mailbox_argument(name: str, *, utf8: bool) -> str:
    """A mailbox's name as a command's argument; `utf8`: UTF8=ACCEPT is enabled."""
    name = unicodedata.normalize("NFC", name)
    return quoted(name if utf8 else encode_mutf7(name), field="mailbox")


def encode_mutf7(name: str) -> str:
    """RFC 3501 5.1.3."""

    def shifted(found: re.Match[str]) -> str:
        text = found[0].encode("utf-16-be", "surrogatepass")
        return "&" + base64.b64encode(text).decode("ascii").rstrip("=").replace("/", ",") + "-"

    return _UNPRINTABLE.sub(shifted, name.replace("&", "&-"))


def decode_mailbox(wire: bytes) -> str:
    """A name as the server wrote it: modified UTF-7, or UTF-8 where it has 8-bit bytes (RFC 9051 5.1)."""
    if not wire.isascii():
        return unicodedata.normalize("NFC", wire.decode("utf-8", "replace"))

    def unshifted(found: re.Match[bytes]) -> bytes:
        coded = found[1]
        if not coded:
            return b"&"
        try:
            text = base64.b64decode(coded.replace(b",", b"/") + b"=" * (-len(coded) % 4), validate=True)
            return text.decode("utf-16-be").encode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return found[0]  # not modified UTF-7 after all: the name is what it is

    return unicodedata.normalize("NFC", _SHIFTED.sub(unshifted, wire).decode("utf-8", "replace"))


def uid_set(uids: Iterable[int]) -> str:
    """RFC 9051 section 9, sequence-set: runs of ascending UIDs as ranges."""
    runs: list[str] = []
    first = last = 0
    for uid in sorted(uids):
        if last and uid == last + 1:
            last = uid
            continue
        if last:
            runs.append(str(first) if first == last else f"{first}:{last}")
        first = last = uid
    if last:
        runs.append(str(first) if first == last else f"{first}:{last}")
    return ",".join(runs)
