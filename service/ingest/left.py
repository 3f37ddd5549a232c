"""Epochs that an account's mailboxes have left, and what was known in them: for a mailbox that shows up later.

Used by epochs.py through build, and by lineage.py. Where a mailbox is renamed and another one made under its name, the
name's epoch is over, and nothing in the log says where its mail went: the mailbox that has it now finds it here. Kept
in the bucket `mail-cursors`, in one key an account; a snapshot of the known state stays for as long as it is named
here, or by its own mailbox. Newer ones take the place of older ones, but of none that a mailbox still recognises by.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from service.bus import Conflict, KeyValue
from service.errors import Transient
from service.ingest.cursor import Before, Cursor, Named, name_id

# Who is renamed and made again between two looks: the newest. With their cursors 40 KB.
LEFT_LIMIT: Final = 64
# And those that mailboxes recognise by now: one that was deleted meanwhile will never say that it is done.
TAKEN_LIMIT: Final = 64
CONFLICTS_LIMIT: Final = 5


class LeftEpoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last cursor of an epoch that `mailbox` has left, which stood at `seq` in the log; it names its snapshot.

    `settled`: the mailbox itself needs that no more. `takers`: name_id of those that recognise by it. Without a mailbox
    it is there for these alone, and goes with the last of them.
    """

    mailbox: str
    cursor: Cursor
    seq: int
    settled: bool = False
    takers: list[str] = []

    @property
    def snapshot(self) -> str:
        """The id of what was known."""
        return self.cursor.state.id if self.cursor.state is not None else ""

    @property
    def place(self) -> tuple[str, int, str]:
        """What it is the last of."""
        return self.mailbox, self.cursor.uidvalidity, self.cursor.box


_DECODER: Final = msgspec.json.Decoder(list[LeftEpoch])


class LeftEpochs:
    """One account's."""

    def __init__(self, bucket: KeyValue, account: str) -> None:
        self._bucket = bucket
        self._key = f"{account}.left"
        # A tree that is renamed: they would be in each other's way.
        self._changes = asyncio.Lock()

    async def all(self) -> Sequence[LeftEpoch]:
        """Those that are kept, oldest first. Raises Transient."""
        entry = await self._bucket.get(self._key)
        return _load(entry.value) if entry is not None else []

    async def add(self, left: LeftEpoch) -> list[str]:
        """One more, before its mailbox begins another; gives the snapshots that nobody needs now. Raises Transient."""
        dropped: list[str] = []

        def more(there: list[LeftEpoch]) -> list[LeftEpoch]:
            # Of the same epoch what is known is newer now; and left once more, after a kill, it may be what it was.
            older = [one for one in there if one.place == left.place and one.snapshot != left.snapshot]
            again = [one.takers for one in there if (one.place, one.snapshot) == (left.place, left.snapshot)]
            taken_older = [_nobodys(one) for one in older if one.takers]
            others = [*taken_older, *(one for one in there if one.place != left.place)]
            done = [one for one in others if _is_done(one, others)]
            kept = [one for one in others if one not in done]
            # Before all others those whose snapshot stays all the same.
            taken = sorted((one for one in kept if one.takers), key=lambda one: one.settled or not _is_nobodys(one))
            free = [one for one in kept if not one.takers]
            over = [*free[: max(0, len(free) + 1 - LEFT_LIMIT)], *taken[: max(0, len(taken) - TAKEN_LIMIT)]]
            gone = [*(one for one in older if not one.takers), *over]
            dropped[:] = [one.snapshot for one in [*done, *(one for one in gone if one.settled)]]
            return [*(one for one in kept if one not in over), replace(left, takers=again[0] if again else [])]

        await self._change(more)
        return dropped

    async def drop(self, is_over: Callable[[LeftEpoch], bool]) -> list[str]:
        """Those that are over are kept no more; gives their snapshots that nobody recognises by. Raises Transient.

        A snapshot that others recognise by stays, of an epoch that is nobody's, until they are through with it.
        """
        dropped: list[str] = []

        def less(there: list[LeftEpoch]) -> list[LeftEpoch]:
            over = [one for one in there if is_over(one)]
            dropped[:] = [one.snapshot for one in over if not one.takers]
            return [_nobodys(one) if one in over else one for one in there if one not in over or one.takers]

        await self._change(less)
        return dropped

    async def take(self, mailbox: str, before: Before) -> None:
        """A mailbox is about to recognise by these epochs, and by no others. Raises Transient."""
        taker, chain = name_id(mailbox), before.chain()

        def taken(there: list[LeftEpoch]) -> list[LeftEpoch]:
            needed, known = {one.id for one in chain}, {one.snapshot for one in there}
            # What is nobody's may be what it needs itself, until its next epoch has begun: it says when it is done.
            kept = [one if _is_nobodys(one) else _taken(one, taker, taken=False) for one in there]
            # Who has not left the epoch that this one goes on by needs its snapshot, and those beyond, too, and could
            # delete it: there again, it goes on by the copy of its position, which names what was saved for this one.
            unknown = [_not_left(one) for one in chain if one.id not in known]
            all = [_taken(one, taker, taken=True) if one.snapshot in needed else one for one in [*kept, *unknown]]
            # Where it is gone for good, nobody says that it is done.
            noted = [one for one in all if _is_nobodys(one) and not one.settled]
            return [one for one in all if one not in noted[: max(0, len(noted) - TAKEN_LIMIT)]]

        await self._change(taken)

    async def settle(self, mailbox: str, snapshot: str) -> bool:
        """A mailbox that left it, or recognised by it, needs a snapshot no more. Whether it stays all the same.

        Raises Transient.
        """
        found: list[LeftEpoch] = []
        named: list[LeftEpoch] = []

        def settled(there: list[LeftEpoch]) -> list[LeftEpoch]:
            found[:] = [one for one in there if one.snapshot == snapshot]
            # Whoever goes on by an epoch that is kept recognises by what that one recognised by, too.
            named[:] = [one for one in there if snapshot in one.cursor.needed]
            return [_settled(one, mailbox) if one in found else one for one in there]

        await self._change(settled)
        return bool(found or named)

    async def _change(self, change: Callable[[list[LeftEpoch]], list[LeftEpoch]]) -> None:
        async with self._changes:
            for _ in range(CONFLICTS_LIMIT):
                entry = await self._bucket.get(self._key)
                there = _load(entry.value) if entry is not None else []
                changed = change(there)
                if changed == there:
                    return
                try:
                    if entry is None:
                        await self._bucket.create(self._key, msgspec.json.encode(changed))
                    else:
                        await self._bucket.update(self._key, msgspec.json.encode(changed), entry.revision)
                except Conflict:
                    continue
                return
        raise Transient("others write the account's left epochs meanwhile", where=self._key)


def _taken(one: LeftEpoch, taker: str, *, taken: bool) -> LeftEpoch:
    others = [other for other in one.takers if other != taker]
    return replace(one, takers=[*others, taker] if taken else others)


def _settled(one: LeftEpoch, mailbox: str) -> LeftEpoch:
    if one.mailbox == mailbox:
        return replace(one, settled=True)
    left = _taken(one, name_id(mailbox), taken=False)
    return replace(left, settled=left.settled or (_is_nobodys(left) and not left.takers))


def _not_left(one: Before) -> LeftEpoch:
    cursor = Cursor("", one.uidvalidity, 0, 0, "", state=Named(0, id=one.id))
    return LeftEpoch("", cursor, 0, takers=[name_id(one.mailbox)])


def _is_nobodys(one: LeftEpoch) -> bool:
    return not one.mailbox


def _is_done(one: LeftEpoch, others: Sequence[LeftEpoch]) -> bool:
    # Of an epoch that is kept it is found, and taken, by what that one recognised by.
    return _is_nobodys(one) and not one.takers and not any(one.snapshot in other.cursor.needed for other in others)


def _nobodys(one: LeftEpoch) -> LeftEpoch:
    # Its mailbox may need the snapshot still: by then it is one of those that do.
    takers = one.takers if one.settled else [*one.takers, name_id(one.mailbox)]
    return replace(one, mailbox="", settled=True, takers=takers)


def _load(value: bytes) -> list[LeftEpoch]:
    try:
        return _DECODER.decode(value)
    except msgspec.MsgspecError:
        return []
