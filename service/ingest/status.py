"""What a mailbox shows of itself, and remembers over its connections. Used by mailbox.py; shown by the status page."""

import math
from dataclasses import dataclass, field
from datetime import datetime

from service.contract import Sync


@dataclass(slots=True)
class MailboxStatus:
    """What a mailbox shows of itself; lives as long as the account does."""

    name: str
    state: str = "starting"
    last_uid: int = 0
    top_uid: int = 0
    sync: Sync = Sync.NONE
    announced: int = 0
    last_event_at: datetime | None = None
    # What the server offers and refuses, said once.
    refused: set[str] = field(default_factory=set)
    # UIDs that were in hand when a connection broke, and how often.
    suspects: dict[int, int] = field(default_factory=dict)

    def calm_s(self, now: datetime) -> float:
        """For how long nothing has happened in it, as far as this process knows."""
        return math.inf if self.last_event_at is None else (now - self.last_event_at).total_seconds()
