"""Who asks for a full comparison of a mailbox now, and what was found for them.

A desk lives as long as its account; mailbox.py sits at it while the mailbox is followed. Whoever asks while one is
under way is answered by the next, all of them by one: what changed before they asked is in what they are told.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.contract import Resynced, email_id, mailbox_id
from service.errors import Transient


class Lookup(Protocol):
    """What knows under which numbers mail was announced (memory.py). `heard`: the highest of them that it heard of."""

    @property
    def heard(self) -> int:
        """From NUMBERS_FROM on."""
        ...

    def uid_of(self, uidvalidity: int, number: int) -> int | None:
        """The UID of a number: 0 where its message is gone, None where the epoch is another.

        Raises Transient while nobody knows.
        """
        ...

    def name_of(self, uidvalidity: int, uid: int) -> int:
        """What the id of a message is made of: its UID, or the number that it was announced under."""
        ...


@dataclass(slots=True)
class Counts:
    """Events since a mailbox was opened."""

    received: int = 0
    changed: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Stands:
    """In which epoch a mailbox is; `box`: what its server calls it for ever, where it does (RFC 8474); `turn`: as
    Cursor has it."""

    uidvalidity: int
    box: str = ""
    turn: int = 0


class Desk:
    """One mailbox's."""

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox
        self._nudge: Callable[[], None] | None = None
        self._waiting: list[asyncio.Future[Resynced]] = []
        self._taken: list[asyncio.Future[Resynced]] = []
        self._rounds: list[asyncio.Future[None]] = []
        # Where numbers that are no UIDs are looked up, once the mailbox is followed: as they were when it last was.
        self.numbers: Lookup | None = None
        # As the last connection found it; None until there was one.
        self.stands: Stands | None = None
        # Who gives them, in this process: what it gave since is not gone.
        self.giver: Lookup | None = None

    def uid_of(self, uidvalidity: int, number: int) -> int | None:
        """As Lookup. Raises Transient, too, while the mailbox is not followed."""
        if self.numbers is None:
            raise self._not_connected()
        uid = self.numbers.uid_of(uidvalidity, number)
        if uid == 0 and self.giver is not None and self.numbers.heard < number <= self.giver.heard:
            what = "IMAP has not heard yet of what POP3 announced"
            raise Transient(what, where=self.mailbox, remedy="ask again later")
        return uid

    def turn_of(self, uidvalidity: int) -> int | None:
        """Which of the epochs of this UIDVALIDITY the mailbox is in; None: another. Raises Transient until it began."""
        if self.stands is None:
            raise self._not_connected()
        return self.stands.turn if self.stands.uidvalidity == uidvalidity else None

    async def ask(self) -> Resynced:
        """Have it compared. Raises Transient where the mailbox is not followed now, or its connection is lost."""
        if self._nudge is None:
            raise self._not_connected()
        answer: asyncio.Future[Resynced] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._nudge()
        return await answer

    async def caught_up(self) -> None:
        """Until all that the mailbox holds now is told. Raises Transient as `ask` does.

        The round that is under way may have looked before this: the next one is waited for, too.
        """
        for _ in range(2):
            if self._nudge is None:
                raise self._not_connected()
            passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._rounds.append(passed)
            self._nudge()
            await passed

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

    def passed(self) -> None:
        """All that was there when it was looked at is told."""
        rounds, self._rounds = self._rounds, []
        for waiting in rounds:
            if not waiting.done():
                waiting.set_result(None)

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
        waiting: list[asyncio.Future[Any]] = [*self._taken, *self._waiting, *self._rounds]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self._not_connected())
        self._taken, self._waiting, self._rounds = [], [], []

    def _not_connected(self) -> Transient:
        return Transient(f"{self.mailbox} is not connected", remedy="ask again later")


class Desks:
    """An account's: the mailboxes that it follows, or tries to."""

    def __init__(self) -> None:
        self._desks: dict[str, Desk] = {}
        self._givers: dict[str, Lookup] = {}

    def desk(self, mailbox: str) -> Desk:
        """The desk of a mailbox, which is there from now on."""
        desk = self._desks.setdefault(mailbox, Desk(mailbox))
        desk.giver = self._givers.get(mailbox)
        return desk

    def gives(self, mailbox: str, giver: Lookup) -> None:
        """What announces mail of a mailbox under numbers that are no UIDs, whenever the mailbox is not followed."""
        self._givers[mailbox] = giver
        if (desk := self._desks.get(mailbox)) is not None:
            desk.giver = giver

    def drop(self, mailbox: str) -> None:
        """It is followed no more."""
        self._desks.pop(mailbox, None)

    def mailboxes(self) -> Sequence[str]:
        """Their names."""
        return list(self._desks)

    def uid_of(self, mailbox: str, uidvalidity: int, number: int) -> int | None:
        """As Lookup. Raises Transient, too, while the mailbox is not followed."""
        desk = self._desks.get(mailbox)
        return desk.uid_of(uidvalidity, number) if desk is not None else None

    def turn_of(self, mailbox: str, uidvalidity: int) -> int | None:
        """As Desk; None, too, where the mailbox is not followed. Raises Transient until it began."""
        desk = self._desks.get(mailbox)
        return desk.turn_of(uidvalidity) if desk is not None else None

    def stands(self, mailbox: str) -> Stands | None:
        """In which epoch a mailbox is, as far as is known."""
        desk = self._desks.get(mailbox)
        return desk.stands if desk is not None else None

    def shares(self, mailbox: str, uidvalidity: int) -> bool:
        """Whether another one of them has this UIDVALIDITY, as far as is known."""
        others = (desk.stands for name, desk in self._desks.items() if name != mailbox)
        return any(stands is not None and stands.uidvalidity == uidvalidity for stands in others)

    def id_of(self, mailbox: str, uidvalidity: int, uid: int) -> str:
        """The id of a message, as far as is known: by its UID, or a number, in this turn of its UIDVALIDITY."""
        desk = self._desks.get(mailbox)
        if desk is None:
            return email_id(mailbox, uidvalidity, uid)
        stands = desk.stands
        turn = stands.turn if stands is not None and stands.uidvalidity == uidvalidity else 0
        name = desk.numbers.name_of(uidvalidity, uid) if desk.numbers is not None else uid
        return email_id(mailbox, uidvalidity, name, turn)

    async def caught_up(self, mailbox: str) -> None:
        """Until all that one of them holds now is told. Raises Transient."""
        await self._followed(mailbox).caught_up()

    async def resync(self, mailbox: str) -> Resynced:
        """Compare one of them. Raises Transient."""
        return await self._followed(mailbox).ask()

    def _followed(self, mailbox: str) -> Desk:
        if (desk := self._desks.get(mailbox)) is None:
            raise Transient(f"{mailbox} is not followed")
        return desk
