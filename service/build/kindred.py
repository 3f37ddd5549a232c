"""What an account's mailboxes were called until now: asked of each other, and of what is kept of those that went.

Used by incoming.py. A mailbox that has no position, or whose epoch is over, may go on where another one stood: one that
is gone (ingest's lineage.py), or one whose name was given to another mailbox. Whoever has that name now may not have
noticed, and its connection may still show the mail that was renamed away: it looks first, and leaves its epoch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime
from typing import Final

from service.errors import Transient, verdict_of
from service.ingest import Before, Cursor, Desks, Epoch, Former, ImapSource, Kin, Kinship, Lineage
from service.tasks import TaskGroup

# Until a mailbox whose name another one has now has looked: it may have to wait for a connection.
LEAVES_LIMIT_S: Final = 10.0


class Family:
    """One account's mailboxes. `last`: where one stood; `there`: all that there are, `followed`: of them these."""

    def __init__(
        self,
        lineage: Lineage,
        desks: Desks,
        *,
        last: Callable[[Kin], Awaitable[Former | None]],
        initial: datetime | str,
        there: Callable[[], Collection[str]],
        followed: Callable[[], Collection[str]],
    ) -> None:
        self.lineage = lineage
        self._desks = desks
        self.last = last
        self._initial = initial
        self._there = there
        self._followed = followed

    async def former(self, name: str, epoch: Epoch, source: ImapSource, *, late: bool) -> list[Former]:
        """What a mailbox may have been called that was renamed while nobody looked. Raises Transient.

        `late`: others were there before it, and one of them may stand where it is.
        """
        there = self._there()
        behind: list[Kin] = []
        for other in await self.lineage.doubles(name, epoch, there, self._desks.stands) if late else ():
            # RFC 8474 4: no two have one MAILBOXID, whatever their UIDVALIDITY; Cyrus counts that in seconds. A name
            # that the server does not know at this moment, in the middle of a swap, is nobody's.
            is_another = other.proved or await source.uidvalidity_of(other.mailbox) != epoch.uidvalidity
            if is_another and not await self._leaves(other.mailbox, epoch):
                behind.append(other)
        found: list[Former] = []
        for one in [*await self.lineage.kin(name, epoch, there), *behind]:
            if (left := one.left) is not None:
                found.append(Former(one.mailbox, left.cursor, self._initial, one.proved, left.seq))
            elif (last := await self.last(one)) is not None:
                found.append(last)
        # Whoever stood in the epoch last knows the most.
        return sorted(found, key=lambda one: one.seq, reverse=True)

    async def _leaves(self, other: str, epoch: Epoch) -> bool:
        """Have a mailbox find out that its epoch is over, and tells nothing more of it; False where it does not."""
        if other not in self._followed():
            return False

        async def look() -> None:
            with suppress(Transient):
                await self._desks.resync(other)

        try:
            async with asyncio.timeout(LEAVES_LIMIT_S), TaskGroup() as group:
                looking = group.create_task(look(), name="look")
                await self.lineage.wait_left(other, epoch)
                looking.cancel()
        except TimeoutError:
            return False
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed
        return True


class Kindred(Kinship):
    """One mailbox among them. `came_as`: the one that went as this one came; `new`: it appeared."""

    def __init__(
        self,
        family: Family,
        name: str,
        came_as: Kin | None,
        source: ImapSource,
        *,
        new: bool,
    ) -> None:
        self._family = family
        self._name = name
        self._came_as = came_as
        self._source = source
        self._new = new
        self._is_looked_up = False
        # Whoever was about to leave an epoch, in this process or one before, may find that it is in it still.
        self._may_have_left = True

    async def former(self, epoch: Epoch, *, begun: bool) -> list[Former]:
        """What it may have been called until now."""
        last = await self._family.last(self._came_as) if self._came_as is not None else None
        if last is not None and _is_of(last, epoch):
            return [last]
        return await self._family.former(self._name, epoch, self._source, late=self._new or begun)

    async def later(self, epoch: Epoch, seq: int) -> list[Former]:
        """Its names since. Followed once without any, it is asked for no more."""
        if self._is_looked_up or not (self._new or self._came_as is not None):
            return []
        found = [one for one in await self.former(epoch, begun=False) if one.seq > seq]
        self._is_looked_up = not found
        return found

    def began(self) -> None:
        """Whose name it has next is found by what is kept: the one that went as it came is another by then."""
        self._came_as = None

    async def entered(self, epoch: Epoch) -> list[str]:
        """Whoever waits until it leaves that epoch is not answered by how it did so before."""
        return await self._family.lineage.entered(self._name, epoch)

    async def stayed(self, cursor: Cursor) -> list[str]:
        """Looked at once, and again after it was about to leave."""
        if not self._may_have_left:
            return []
        dropped = await self._family.lineage.stayed(self._name, cursor)
        self._may_have_left = False
        return dropped

    async def left(self, cursor: Cursor, seq: int) -> list[str]:
        """Kept for those that appear later."""
        self._may_have_left = True
        return await self._family.lineage.left(self._name, cursor, seq)

    async def taken(self, before: Before) -> None:
        """Noted where they are kept."""
        await self._family.lineage.taken(self._name, before)

    async def settled(self, snapshot: str) -> bool:
        """By what is kept."""
        return await self._family.lineage.settled(self._name, snapshot)


def _is_of(last: Former, epoch: Epoch) -> bool:
    # Where two have one UIDVALIDITY, the one that went is not the one that came: RFC 8474 tells.
    if last.cursor.box and epoch.mailbox_id:
        return last.cursor.box == epoch.mailbox_id
    return last.proved or last.cursor.uidvalidity == epoch.uidvalidity
