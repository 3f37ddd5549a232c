"""Values → what a command says on the wire, and mailbox names both ways. Pure; the only encoder of this room.

RFC 9051 section 9 (quoted, literal, date-time, sequence-set), RFC 3501 5.1.3 (modified UTF-7), RFC 6855
(UTF8=ACCEPT), RFC 7888 (LITERAL+ and LITERAL-).
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from service.contract import normal_form
from service.errors import Permanent

_BREAKS: Final = re.compile(r"[\r\n\0]")
# What is no base64 ends it: looked for to the end of a name of 256 KB after each `&`, it would take minutes.
_SHIFTED: Final = re.compile(rb"&([A-Za-z0-9+,]*)-")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# RFC 7888 section 5: what LITERAL- allows without waiting.
LITERAL_MINUS_BYTES: Final = 4096
# With LITERAL+ all of a literal is sent before the server can refuse it: not worth it where it is large.
LITERAL_PLUS_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Literal:
    """A string that goes as a literal (RFC 9051 4.3); `binary`: as a literal8 (RFC 6855 section 4)."""

    data: bytes
    binary: bool = False


Argument = str | Literal


@dataclass(frozen=True, slots=True)
class Cut:
    """A command's arguments as they go over the wire: `first` ends the first line, each of `rest` ends with a line.

    `waits`: the server says `+` before each of `rest` may be sent.
    """

    first: str
    rest: list[bytes]
    waits: bool


def cut(arguments: Sequence[Argument], capabilities: frozenset[str]) -> Cut:
    """Arguments → lines and literals. RFC 7888: LITERAL+ and LITERAL- send them without waiting, within limits."""
    largest = max((len(one.data) for one in arguments if isinstance(one, Literal)), default=0)
    plus = "LITERAL+" in capabilities and largest <= LITERAL_PLUS_BYTES
    minus = "LITERAL-" in capabilities and largest <= LITERAL_MINUS_BYTES
    sign = b"+" if plus or minus else b""
    line, rest, glue = b"", list[bytes](), True
    for one in arguments:
        line += b"" if glue or one == ")" else b" "
        glue = one == "("
        if isinstance(one, str):
            line += one.encode("utf-8")
        else:
            rest.append(line + b"%b{%d%b}" % (b"~" if one.binary else b"", len(one.data), sign))
            line = one.data
    first, *rest = [*rest, line]
    return Cut(first.decode("utf-8"), rest, waits=not sign)


def quoted(text: str, *, field: str) -> str:
    """RFC 9051 section 9, quoted. Raises Permanent naming `field` where CR, LF or NUL is inside."""
    if _BREAKS.search(text):
        raise Permanent("CR, LF and NUL cannot be sent to a mail server", where=field, remedy="correct the value")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def astring(text: str, *, utf8: bool, field: str) -> Argument:
    """Text as quoted, or as a literal where it is not ASCII and UTF-8 is not enabled (RFC 9051 section 9, string)."""
    checked = quoted(text, field=field)
    return checked if utf8 or text.isascii() else Literal(text.encode("utf-8"))


def date(moment: datetime) -> str:
    """RFC 9051 section 9, date: the day in UTC."""
    day = moment.astimezone(UTC)
    return f"{day.day}-{MONTHS[day.month - 1]}-{day.year:04d}"


def date_time(moment: datetime) -> str:
    """RFC 9051 section 9, date-time, in UTC."""
    day = moment.astimezone(UTC)
    return f'"{day.day:2d}-{MONTHS[day.month - 1]}-{day.year:04d} {day:%H:%M:%S} +0000"'


def mailbox_argument(name: str, *, utf8: bool) -> str:
    """A mailbox's name as a command's argument; `utf8`: UTF8=ACCEPT is enabled."""
    return quoted(name if utf8 else encode_mutf7(name), field="mailbox")


def encode_mutf7(name: str) -> str:
    """RFC 3501 5.1.3."""

    def shifted(found: re.Match[str]) -> str:
        text = found[0].encode("utf-16-be", "surrogatepass")
        return "&" + base64.b64encode(text).decode("ascii").rstrip("=").replace("/", ",") + "-"

    return _UNPRINTABLE.sub(shifted, name.replace("&", "&-"))


def decode_mailbox(wire: bytes, *, utf8: bool) -> str:
    """A name in normal form C, however the server writes it."""
    return normal_form(spelled_mailbox(wire, utf8=utf8))


def spelled_mailbox(wire: bytes, *, utf8: bool) -> str:
    """A name as the server writes it: modified UTF-7, or UTF-8 where it has 8-bit bytes (RFC 9051 5.1).

    `utf8`: UTF8=ACCEPT is enabled, and `&` means itself (RFC 6855 section 3).
    """
    if utf8 or not wire.isascii():
        return wire.decode("utf-8", "replace")

    def unshifted(found: re.Match[bytes]) -> bytes:
        coded = found[1]
        if not coded:
            return b"&"
        try:
            text = base64.b64decode(coded.replace(b",", b"/") + b"=" * (-len(coded) % 4), validate=True)
            return text.decode("utf-16-be").encode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return found[0]  # not modified UTF-7 after all: the name is what it is

    return _SHIFTED.sub(unshifted, wire).decode("utf-8", "replace")


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
