"""What is done to a mail once its event is confirmed ⇄ the header of its event that says so. Plain data.

Written by settings, stood by parsing into the event, done by service/after.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.contract.ids import mailbox_id

# An event without it is one after which nothing is done.
AFTER_HEADER: Final = "Mail-After"


class AfterKind(StrEnum):
    """The first word of the header."""

    NOTHING = "nothing"
    SEEN = "seen"
    DELETE = "delete"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class After:
    """A rule. `mailbox`: where mail is moved to; `keep_days`: for so long mail stays that is deleted then."""

    kind: AfterKind = AfterKind.NOTHING
    mailbox: str = ""
    keep_days: int = 0

    @property
    def mark(self) -> str:
        """The header's value: `seen`, `delete`, `move <mailbox id>`; empty where nothing is done."""
        match self.kind:
            case AfterKind.NOTHING:
                return ""
            case AfterKind.MOVE:
                return f"{self.kind} {mailbox_id(self.mailbox)}"
            case _:
                return self.kind

    @property
    def waits(self) -> bool:
        """Whether it takes mail out of its mailbox: that is done some time after its event."""
        return self.kind in {AfterKind.DELETE, AfterKind.MOVE}

    @property
    def needs_all(self) -> bool:
        """Whether only mail is concerned of which events and blobs hold everything: else its content would be gone."""
        return self.kind is AfterKind.DELETE
