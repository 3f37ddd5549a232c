"""Mailboxes' names as a server lists them → as mailbus calls them, so many and no more. Pure.

Used by connection.py, session.py, listing.py and overview.py, for one LIST each.
"""

from typing import Final

from service.contract import normal_form
from service.imap.encode import spelled_mailbox

LIST_LIMIT: Final = 20_000
# All of them are gone through while everybody waits: 100 bytes each. One alone ends at grammar.NAME_LIMIT_BYTES.
LIST_LIMIT_BYTES: Final = 2 * 1024 * 1024


class ListedNames:
    """`whole`: there were no more. `forms`: as the server spells a name → in normal form C (RFC 9051 5.1 wants it)."""

    def __init__(self, *, utf8: bool) -> None:
        self.whole = True
        self.forms: dict[str, str] = {}
        self._utf8 = utf8
        self._left = LIST_LIMIT
        self._room = LIST_LIMIT_BYTES

    def take(self, wire: bytes) -> str | None:
        """One more; None beyond the limits."""
        self._left -= 1
        self._room -= len(wire)
        if self._left < 0 or self._room < 0:
            self.whole = False
            return None
        spelled = spelled_mailbox(wire, utf8=self._utf8)
        name = self.forms[spelled] = normal_form(spelled)
        return name
