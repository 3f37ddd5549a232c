"""How many bytes an account may read a day, where its provider shuts out whoever reads more. One for each account.

Used by from_imap.py and by commands, shared by an account's mailboxes. Half of a day's bytes may be read at once, the
other half comes back over a day: so in no 24 hours more is read than the whole. A restart begins with the first half
anew.
"""

from typing import Final

from service.clock import Clock
from service.errors import Inward

DAY_S: Final = 86400.0
# Once used up, so much is saved before reading goes on: pages, not single messages.
SHARE: Final = 100


class Allowance:
    """A leaking bucket of bytes; what is taken may exceed what is there by one page."""

    def __init__(self, daily_bytes: int, clock: Clock) -> None:
        self._daily = daily_bytes
        self._clock = clock
        self._pace = daily_bytes / 2 / DAY_S
        self._left = daily_bytes / 2
        self._at = clock.monotonic()

    def take(self, size: int) -> None:
        """Note that `size` bytes will be read. Raises as `check` does."""
        self.check()
        self.note(size)

    def check(self) -> None:
        """Raises Transient, with the time to wait, where no bytes are left."""
        self._refill()
        if self._left <= 0:
            wait_s = (self._daily / SHARE - self._left) / self._pace
            raise Inward(
                f"all of the {self._daily // 1_000_000} MB that may be read a day are read",
                where="imap.daily",
                remedy="it goes on by itself; raise `incoming.imap.daily` if the provider allows more",
                retry_after_s=wait_s,
            )

    def note(self, size: int) -> None:
        """So many bytes were read, or are about to be."""
        self._refill()
        self._left -= size

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(self._daily / 2, self._left + (now - self._at) * self._pace)
        self._at = now
