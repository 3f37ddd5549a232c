"""What shall be erased, and whether a message is about it. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from unicodedata import normalize
from urllib.parse import quote, unquote

from service.contract import BLOB_ID, spellings

EVERY_ACCOUNT: Final = "*"
# What takes an address's place where a record must stay. RFC 2606 section 2: nobody's, for ever.
PSEUDONYM: Final = "erased@erased.invalid"
# What an address may go on with, to either side: what is longer is another one. `=` and `'` stand before addresses
# more often than in them; so does what a link has percent-encoded: `=`, `:`, `<`, `,` and a space. An accent that is a
# character of its own belongs to the letter before it.
_BEFORE: Final = r"(?:(?<![\w.+%\u0300-\u036f-])|(?<=%3D|%3A|%3C|%2C|%20))"
_AFTER: Final = r"(?![\w-]|\.\w)"
# RFC 8259 section 7: how a character is written in JSON. In other texts a backslash before one says the same.
_ESCAPED: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_SPACES: Final = frozenset("bfnrt")
# The headers of requests, their statuses and dead letters that a requester's words may stand in.
_SAID: Final = ("Nats-Msg-Id", "Mail-Request-Id", "Mail-Reason", "ce-subject")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Mails by their ids, or all that names an address (`mention`); `account` is `*` for all of them."""

    account: str
    ids: frozenset[str] = frozenset()
    mention: re.Pattern[str] | None = None

    def has_account(self, account: str) -> bool:
        """Whether an account is meant."""
        return self.account in (EVERY_ACCOUNT, account)

    def is_mail(self, id: str, payload: bytes) -> bool:
        """Whether the event of a mail is meant."""
        return id in self.ids or self.is_named(payload)

    def is_named(self, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Whether the address stands in it, however its letters are written in JSON; or in a request's `headers`."""
        if self.mention is None:
            return False
        said = [unquote(headers[name]) for name in _SAID if name in headers] if headers else []
        return any(self.mention.search(text) for text in (_plain(payload.decode("utf-8", "replace")), *said))


def wanted_mails(account: str, ids: Iterable[str]) -> Wanted:
    """Mails of one account."""
    return Wanted(account, ids=frozenset(ids))


def wanted_address(address: str, account: str) -> Wanted:
    """All that names an address, in any case of its letters and in both spellings of its domain."""
    # An ü may be two characters, and a link's %C3%BC is no other case of %C3%9C.
    texts = {normalize(form, one) for one in spellings(address) for form in ("NFC", "NFD")}
    texts |= {quote(case, safe="") for one in texts for case in (one, one.lower())}
    written = "|".join(re.escape(one) for one in sorted(texts))
    return Wanted(account, mention=re.compile(f"{_BEFORE}(?:{written}){_AFTER}", re.IGNORECASE))


def _plain(text: str) -> str:
    """JSON's escapes → the characters that they stand for. A line's end is no letter before the address behind it."""
    if "\\" not in text:
        return text
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else _character(found[2]), text)
    # What JSON writes as two halves is one character.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(letter: str) -> str:
    return " " if letter in _SPACES else letter


def blobs_named(payload: bytes, headers: Mapping[str, str]) -> set[str]:
    """The blobs that an event, a dead letter or a request names."""
    text = payload.decode("utf-8", "replace") + "\n" + "\n".join(headers.values())
    return set(BLOB_ID.findall(text))
