"""Unique ids that a server makes of its IMAP numbers → those numbers. Pure.

Used by ingest to let POP3 stand in for IMAP: a mail has the same UID over both. Formats are the defaults of servers
that speak both; a UIDVALIDITY that is known from IMAP proves that it is one of them.
"""

import re
from typing import Final

_LINKS: Final = (
    # Dovecot, pop3_uidl_format = %08Xu%08Xv.
    (re.compile(rb"(?P<uid>[0-9A-Fa-f]{8})(?P<uidvalidity>[0-9A-Fa-f]{8})"), 16),
    # Cyrus, uidl_format: cyrus.
    (re.compile(rb"(?P<uidvalidity>[0-9]{1,10})\.(?P<uid>[0-9]{1,10})"), 10),
    # Courier.
    (re.compile(rb"UID(?P<uid>[0-9]{1,10})-(?P<uidvalidity>[0-9]{1,10})"), 10),
)


def linked_uid(uidl: bytes, uidvalidity: int) -> int:
    """The UID in the mailbox of this UIDVALIDITY; 0 where the id does not tell."""
    for form, base in _LINKS:
        found = form.fullmatch(uidl)
        if found is not None and int(found["uidvalidity"], base) == uidvalidity:
            uid = int(found["uid"], base)
            return uid if 0 < uid < 2**32 else 0
    return 0
