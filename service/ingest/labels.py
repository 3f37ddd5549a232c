"""The mailboxes that a message is in, kept among its keywords in the known state. Pure.

Used by announce.py, compare.py and from_imap.py. A server with labels shows one message in several mailboxes: that
these became others is a change like that of a keyword, and is told by the same event. Kept as `\\<mailbox id>`: no
keyword begins so (RFC 8621 4.1.1).
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from service.contract import Keywords, mailbox_id

SIGN: Final = "\\"


@lru_cache(maxsize=1024)
def with_mailboxes(keywords: Keywords, mailboxes: frozenset[str]) -> Keywords:
    """Keywords, and the mailboxes of these names."""
    return keywords | {SIGN + mailbox_id(name) for name in mailboxes}


def keywords_in(known: Iterable[str]) -> dict[str, bool]:
    """The keywords, as an Email has them."""
    return {one: True for one in sorted(known) if not one.startswith(SIGN)}


def mailboxes_in(known: Iterable[str], here: str) -> dict[str, bool]:
    """The ids of the mailboxes, as an Email has them; that of `here`, which is always one, comes first."""
    return dict.fromkeys([here, *(one[1:] for one in sorted(known) if one.startswith(SIGN) and one[1:] != here)], True)
