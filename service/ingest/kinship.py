"""What a mailbox asks of its account's other mailboxes as it begins, and before it deletes what they may need.

Used by epochs.py and memory.py; kindred.py of build answers.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from service.ingest.cursor import Before, Cursor
from service.ingest.plan import Former
from service.ingest.source import Epoch


class Kinship(Protocol):
    """What an account's mailboxes know of each other. All raise Transient."""

    async def former(self, epoch: Epoch, *, begun: bool) -> Sequence[Former]:
        """What the mailbox may have been called until now. `begun`: its name was another's, which stood in the log."""
        ...

    async def later(self, epoch: Epoch, seq: int) -> Sequence[Former]:
        """Where it appeared under a name that it had before, and stood at `seq`: its names since, last first."""
        ...

    def began(self) -> None:
        """It has a position under its name: what it came as is over."""
        ...

    async def entered(self, epoch: Epoch) -> Sequence[str]:
        """It is about to be in this epoch: what it left of it earlier counts no more.

        Gives the snapshots that nobody needs from now on.
        """
        ...

    async def stayed(self, cursor: Cursor) -> Sequence[str]:
        """It goes on in its epoch, which it may have been about to leave: that counts no more.

        Gives the snapshots that nobody else needs from now on.
        """
        ...

    async def left(self, cursor: Cursor, seq: int) -> Sequence[str]:
        """It is about to leave its epoch, which may go on under another name: its last cursor, and where that stands.

        Gives the snapshots that nobody needs from now on.
        """
        ...

    async def taken(self, before: Before) -> None:
        """It is about to begin by what was known under another name, and needs that until it is `settled`."""
        ...

    async def settled(self, snapshot: str) -> bool:
        """It needs the snapshot of the epoch before no more, its own or another's. Whether that stays for others."""
        ...


class Alone(Kinship):
    """A mailbox that has always had its name."""

    async def former(self, epoch: Epoch, *, begun: bool) -> Sequence[Former]:
        """None."""
        return ()

    async def later(self, epoch: Epoch, seq: int) -> Sequence[Former]:
        """None."""
        return ()

    def began(self) -> None:
        """As ever."""

    async def entered(self, epoch: Epoch) -> Sequence[str]:
        """It has never left one."""
        return ()

    async def stayed(self, cursor: Cursor) -> Sequence[str]:
        """As ever."""
        return ()

    async def left(self, cursor: Cursor, seq: int) -> Sequence[str]:
        """Nobody asks."""
        return ()

    async def taken(self, before: Before) -> None:
        """It begins by nothing of others."""

    async def settled(self, snapshot: str) -> bool:
        """Nobody else has it."""
        return False


ALONE: Final = Alone()
