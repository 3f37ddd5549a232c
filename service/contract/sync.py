"""How a mail server tells what became of messages that are known already. Plain data.

Shown in a mailbox's status; RFC 7162.
"""

from enum import StrEnum


class Sync(StrEnum):
    """`qresync`: changes and removals since a moment. `condstore`: changes; removals by comparing UIDs.

    `snapshot`: neither: flags and UIDs are compared with what is known. `none`: it cannot tell, or is not open yet.
    """

    QRESYNC = "qresync"
    CONDSTORE = "condstore"
    SNAPSHOT = "snapshot"
    NONE = "none"
