"""Who asks for a full comparison of a mailbox now, and what was found for them.

A desk lives as long as its account; mailbox.py sits at it while the mailbox is followed. Whoever asks while one is
under way is answered by the next, all of them by one: what changed before they asked is in what they are told.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.contract import Resynced, mailbox_id
from service.errors import Transient


@dataclass(slots=True)
class Counts:
    """Events since a mailbox was opened."""

    received: int = 0
    changed: int = 0
    removed: int = 0


class Desk:
    """One mailbox's."""

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox
        self._nudge: Callable[[], None] | None = None
        self._waiting: list[asyncio.Future[Resynced]] = []
        self._taken: list[asyncio.Future[Resynced]] = []

    async def ask(self) -> Resynced:
        """Have it compared. Raises Transient where the mailbox is not followed now, or its connection is lost."""
        if self._nudge is None:
            raise self._not_connected()
        answer: asyncio.Future[Resynced] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._nudge()
        return await answer

    # -- by whoever follows the mailbox -----------------------------------------------------------------------

    def is_asked(self) -> bool:
        """Whether somebody waits who has not given up."""
        self._waiting = [answer for answer in self._waiting if not answer.done()]
        return bool(self._waiting)

    def begin(self, nudge: Callable[[], None]) -> None:
        """The mailbox is followed; `nudge` is called when somebody asks."""
        self._nudge = nudge

    def take(self) -> bool:
        """The mailbox is about to be opened: those who wait now are answered by `found`. False where nobody does."""
        taken = self.is_asked()
        self._taken, self._waiting = self._waiting, []
        return taken

    def found(self, counts: Counts, *, messages: int, reset: bool) -> None:
        """Everything is compared, and the events are confirmed."""
        taken, self._taken = self._taken, []
        name = self.mailbox
        told = Resynced(mailbox_id(name), name, messages, counts.received, counts.changed, counts.removed, reset)
        for answer in taken:
            if not answer.done():
                answer.set_result(told)

    def end(self) -> None:
        """The mailbox is not followed any more."""
        self._nudge = None
        for answer in [*self._taken, *self._waiting]:
            if not answer.done():
                answer.set_exception(self._not_connected())
        self._taken, self._waiting = [], []

    def _not_connected(self) -> Transient:
        return Transient(f"{self.mailbox} is not connected", remedy="ask again later")


class Desks:
    """An account's: the mailboxes that it follows, or tries to."""

    def __init__(self) -> None:
        self._desks: dict[str, Desk] = {}

    def desk(self, mailbox: str) -> Desk:
        """The desk of a mailbox, which is there from now on."""
        return self._desks.setdefault(mailbox, Desk(mailbox))

    def drop(self, mailbox: str) -> None:
        """It is followed no more."""
        self._desks.pop(mailbox, None)

    def mailboxes(self) -> Sequence[str]:
        """Their names."""
        return list(self._desks)

    async def resync(self, mailbox: str) -> Resynced:
        """Compare one of them. Raises Transient."""
        return await self._desks[mailbox].ask()
