"""Whether IMAP has been away for so long that POP3 is to stand in. Pure. Used by build/stand_in.py.

Whoever reads is not away, however long it takes until all is told: the first time, or after a long outage. POP3 would
only take turns with it.
"""


class Absence:
    """One mailbox's. `limit_s`: for how long nothing has to come."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self._moved = 0

    def is_long(self, now: float, *, away: bool, moved: int) -> bool:
        """Whether POP3 is wanted now. `away`: IMAP cannot be had, as it says itself; `moved`: a figure that moves
        with what it reads."""
        if not away or moved != self._moved:
            self._since = None
        self._moved = moved
        if away and self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._limit_s
