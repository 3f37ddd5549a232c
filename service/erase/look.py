"""What shall be erased, and whether a message is about it. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from service.contract import BLOB_ID

EVERY_ACCOUNT: Final = "*"
# What takes an address's place where a record must stay. RFC 2606 section 2: nobody's, for ever.
PSEUDONYM: Final = "erased@erased.invalid"
# What an address may go on with, to either side: what is longer is another one. `=` and `'` stand before addresses
# more often than in them.
_BEFORE: Final = r"(?<![\w.+%-])"
_AFTER: Final = r"(?![\w-]|\.\w)"


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

    def is_named(self, payload: bytes) -> bool:
        """Whether the address stands in it."""
        return self.mention is not None and self.mention.search(payload.decode("utf-8", "replace")) is not None


def wanted_mails(account: str, ids: Iterable[str]) -> Wanted:
    """Mails of one account."""
    return Wanted(account, ids=frozenset(ids))


def wanted_address(address: str, account: str) -> Wanted:
    """All that names an address, in any case of its letters."""
    written = json.dumps(address, ensure_ascii=False)[1:-1]  # as it stands in JSON
    return Wanted(account, mention=re.compile(_BEFORE + re.escape(written) + _AFTER, re.IGNORECASE))


def blobs_named(payload: bytes, headers: Mapping[str, str]) -> set[str]:
    """The blobs that an event, a dead letter or a request names."""
    text = payload.decode("utf-8", "replace") + "\n" + "\n".join(headers.values())
    return set(BLOB_ID.findall(text))
