"""Where a message lies ⇄ its Email id. Pure.

An id is opaque to consumers (RFC 8620 1.2: `[A-Za-z0-9_-]{1,255}`) and enough by itself to find the
message again on its account: no lookup table. First character: the way it was found.
"""

import base64
import binascii
import hashlib
import struct
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

_IMAP: Final = "i"
_POP3: Final = "p"
# From here on it is no UID (RFC 9051 9: 32 bits), but a number that mailbus gave while POP3 stood in for IMAP.
NUMBERS_FROM: Final = 2**32
TURNS: Final = 2**16
FINGERPRINT_CHARS: Final = 12
# Unicode Standard Annex 15, section 13: no text of any language has more in a row. To order them takes the square of
# their number: 14 s for 256 KB.
MARKS_LIMIT: Final = 30
_PLACE: Final = struct.Struct(">8sII")
_TURN: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class ImapPlace:
    """A message in one epoch of a mailbox (RFC 9051 2.3.1.1). `uid`: or a number from NUMBERS_FROM on.

    `turn`: how often before it UIDVALIDITY did not rise, as of another server or user: it tells epochs of one apart.
    """

    mailbox_hash: bytes
    uidvalidity: int
    uid: int
    turn: int = 0


def normal_form(text: str) -> str:
    """Normal form C; a text with more than MARKS_LIMIT combining marks in a row stays as it is."""
    if text.isascii():
        return text
    in_a_row = 0
    for char in text:
        in_a_row = in_a_row + 1 if unicodedata.combining(char) else 0
        if in_a_row > MARKS_LIMIT:
            return text
    return unicodedata.normalize("NFC", text)


def mailbox_name(mailbox: str) -> str:
    """The one spelling of a mailbox's name: normal form C; INBOX in any case of ASCII is `INBOX` (RFC 9051 5.1)."""
    name = normal_form(mailbox)
    # "ınbox", with a Turkish letter, is another mailbox, and is INBOX in capitals.
    return "INBOX" if name.isascii() and name.upper() == "INBOX" else name


@lru_cache(maxsize=1024)
def mailbox_hash(mailbox: str) -> bytes:
    """8 bytes that name a mailbox: names may be longer than an id."""
    name = mailbox_name(mailbox)
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8]


@lru_cache(maxsize=1024)
def mailbox_id(mailbox: str) -> str:
    """The JMAP id of a mailbox: stable while its name is."""
    return "m" + base64.urlsafe_b64encode(mailbox_hash(mailbox)).decode("ascii").rstrip("=")


def email_id(mailbox: str, uidvalidity: int, uid: int, turn: int = 0) -> str:
    """The id of a message that was announced under a UID, or under a number from NUMBERS_FROM on."""
    way, number = (_IMAP, uid) if uid < NUMBERS_FROM else (_POP3, uid - NUMBERS_FROM)
    packed = _PLACE.pack(mailbox_hash(mailbox), uidvalidity, number)
    if turn:
        packed += _TURN.pack(turn % TURNS)
    return way + base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def place_of(id: str) -> ImapPlace | None:
    """Where the message of this id lies; None for what is no id of ours."""
    try:
        packed = base64.b64decode(id[1:] + "=" * (-(len(id) - 1) % 4), altchars=b"-_", validate=True)
        if id[:1] not in (_IMAP, _POP3) or len(packed) not in (_PLACE.size, _PLACE.size + _TURN.size):
            return None
        mailbox, uidvalidity, number = _PLACE.unpack(packed[: _PLACE.size])
        turn = _TURN.unpack(packed[_PLACE.size :])[0] if len(packed) > _PLACE.size else 0
        return ImapPlace(mailbox, uidvalidity, number if id[:1] == _IMAP else NUMBERS_FROM + number, turn)
    except (binascii.Error, ValueError):
        return None


def fingerprint(size: int, internal_date: datetime | None) -> str:
    """Recognises a message that keeps its UID: RFC 9051 2.3.1.1 says neither of the two ever changes."""
    stamp = internal_date.isoformat() if internal_date else ""
    return hashlib.sha256(f"{size}\0{stamp}".encode()).hexdigest()[:FINGERPRINT_CHARS]
