"""Deleting from a maildrop: a batch of UIDs → DELE, and QUIT. Used by work.py in the place of hands over IMAP.

RFC 1939 6: DELE counts only once QUIT is answered +OK. Without that the batch is not remembered as done, and is done
again: what is gone by then is found gone.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from service.after.act import Acted, Result
from service.after.kept import Kept
from service.after.plan import Item
from service.errors import Permanent
from service.observe import step
from service.pop3 import Door, Listing, take_stock

AT_ONCE: Final = 5_000

# An epoch and UIDs of it → by what each is known in the maildrop; None where the epoch is not the one that is followed.
Identities = Callable[[int, Collection[int]], Mapping[int, bytes] | None]


class Pop3Hands:
    """One account's. `deleted`: where those who follow the maildrop see what they need not miss."""

    def __init__(self, door: Door, identities: Identities, deleted: set[int]) -> None:
        self._door = door
        self._identities = identities
        self._deleted = deleted

    async def ready(self) -> None:
        """There is nothing that could be missing."""

    async def act(self, mailbox: str, items: Sequence[Item], kept: Kept) -> tuple[Acted, int]:
        """In one session. Raises Transient where the server did not say that it is done."""
        acted = Acted()
        newest = max((item.uidvalidity for item in items), default=0)
        uids = {item.uid for item in items if item.uidvalidity == newest}
        identities = self._identities(newest, uids)
        if identities is None:
            # Of an epoch that is over: nothing says which message is meant.
            acted.results[Result.STALE] += len(items)
            return acted, newest
        acted.results[Result.STALE] += len(items) - len(uids)
        await self._delete(mailbox, identities, acted)
        acted.results[Result.GONE] += len(uids) - acted.results[Result.DONE] - len(acted.refused)
        return acted, newest

    async def _delete(self, mailbox: str, identities: Mapping[int, bytes], acted: Acted) -> None:
        session = await self._door.enter()
        try:
            listing = await take_stock(session, self._door.options.message_limit)
            numbers = await _numbers(listing, identities)
            refused = await session.delete(list(numbers))
            step("after.marked")
        except BaseException:
            self._door.abort(session)
            raise
        await self._door.quit(session)
        for number in refused:
            acted.refused[numbers.pop(number)] = Permanent(
                "the server refuses to delete it", where=f"{session.where} {mailbox}", remedy="see its log"
            )
        self._deleted |= set(numbers.values())
        acted.results[Result.DONE] += len(numbers)


async def _numbers(listing: Listing, identities: Mapping[int, bytes]) -> dict[int, int]:
    """Numbers in this session → UIDs, of the messages that are there."""
    wanted = {identity: uid for uid, identity in identities.items()}
    found: dict[int, int] = {}
    for at in range(len(listing)):
        if (uid := wanted.get(listing.identity(at))) is not None:
            found[listing.numbers[at]] = uid
        if at % AT_ONCE == 0:
            await asyncio.sleep(0)
    return found
