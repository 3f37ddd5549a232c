"""Which message of a maildrop is which, where its unique id does not tell: by what TOP shows of it.

Used by from_pop3.py at a look that found something other than more of the same. Rules: docs/decisions/0013-pop3.md.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from service.ingest.contents import Content, Contents
from service.ingest.drop import AT_ONCE, Drop
from service.ingest.memory import Memory
from service.ingest.seen import Seen
from service.pop3 import Session

# So many messages are looked at before it is decided whether to look at more.
STEP: Final = 100
# Of what came after a long absence so many are looked at beyond twice what went: mail shall not wait for it.
LOOK_LIMIT: Final = 1_000


async def slowly(pieces: Iterator[None]) -> None:
    """Let others have their turn in between."""
    for _ in pieces:
        await asyncio.sleep(0)


class Doubts:
    """Of one look. All raise as reading does."""

    def __init__(self, drop: Drop, seen: Seen, memory: Memory, contents: Contents, session: Session) -> None:
        self._drop = drop
        self._listing = drop.listing
        self._seen = seen
        self._memory = memory
        self._contents = contents
        self._session = session

    async def are_others(self, fresh: Sequence[int]) -> bool:
        """Whether messages that nobody knows by their ids are known by their contents, or are older than the epoch.

        Then all ids changed at once. If not, what was known is gone, and this is new mail.
        """
        recogniser = await self._memory.recollect()
        self._contents.by_content = recogniser.by_fingerprint
        # As many as there are: where none of them is known, each is new, and read whole after this.
        for at in range(0, len(fresh), STEP):
            for found in await self._contents.read(self._session, self._listing, fresh[at : at + STEP]):
                if self._is_old(found) or recogniser.has(found.known_by):
                    return True
        return False

    def _is_old(self, found: Content) -> bool:
        floor = self._memory.floor
        return floor is not None and found.date is not None and found.date < floor

    async def are_reused(self, fresh: list[int]) -> bool:
        """Whether a message that should be another is one that is known under another id: then no id can be trusted.

        As where a server counts anew. What is another, and is not known, goes to `fresh`.
        """
        drop, others = self._drop, dict[int, str]()
        for start in range(0, len(drop.doubtful), STEP):
            places = drop.doubtful[start : start + STEP]
            await self._contents.read(self._session, self._listing, places)
            for at in places:
                print = self._contents.get(self._listing, at).print
                if print and bytes.fromhex(print) != self._seen.print(drop.uid(at)):
                    others[at] = print
                elif not print and drop.has_other_size(at, self._memory.known):
                    others[at] = ""
        if others:
            recogniser = await self._memory.recollect()
            if any(print and recogniser.has(f":{print}") for print in others.values()):
                return True
        for at in drop.doubtful:
            drop.settle(at, is_same=at not in others)
        fresh[:] = sorted([*fresh, *others])
        return False

    async def without_renamed(self, fresh: Sequence[int]) -> list[int]:
        """What is fresh, without what another unique id was given to: it has the print of a message that vanished.

        Each vanished message is found once, in the order of UIDs. One that was never announced has a print where it was
        looked at to be recognised; what is older than the starting line is taken for one, where as much went at this
        look.
        """
        drop, vanished, passed, taken = self._drop, list[int](), list[int](), set[int]()
        await slowly(drop.vanished(self._memory.known, vanished))
        await slowly(drop.passed(self._seen, self._memory.known, passed))
        # The first UID stands last: to be popped.
        by_print: dict[bytes, list[int]] = {}
        limit = LOOK_LIMIT + 2 * (len(vanished) + len(passed))
        for count, uid in enumerate(chain(reversed(passed), reversed(vanished))):
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)
            by_print.setdefault(drop.print(uid, self._seen), []).append(uid)
        by_print.pop(b"", None)
        old = passed[::-1]
        if not by_print and not old:
            return list(fresh)
        left = list(fresh[limit:])
        for start in range(0, min(limit, len(fresh)), STEP):
            step = fresh[start : min(limit, start + STEP)]
            await self._contents.read(self._session, self._listing, step)
            for at in step:
                identity = self._listing.identity(at)
                found = self._contents.get(self._listing, at)
                uid = _first(by_print.get(bytes.fromhex(found.print), []), taken)
                if not uid and self._is_old(found):
                    uid = _first(old, taken)
                if uid and not self._seen.get(identity):
                    drop.rename(at, uid)
                    self._seen.rename(uid, identity)
                    taken.add(uid)
                else:
                    left.append(at)
        return sorted(left)


def _first(uids: list[int], taken: set[int]) -> int:
    """The first one that is not taken; 0 where all are."""
    while uids and uids[-1] in taken:
        uids.pop()
    return uids[-1] if uids else 0
