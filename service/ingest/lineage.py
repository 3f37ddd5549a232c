"""Positions of an account's mailboxes that their names do not lead to any more: what a mailbox was called until now.

Used by build for a mailbox that has no position of its own, or another's number. By MAILBOXID (RFC 8474 4.2),
elsewhere by a UIDVALIDITY that looks like a time, as servers make them: then epochs.py compares messages. A position is
that of a mailbox that is gone, or one that its name has left (left.py) because another mailbox has the name now.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from service.bus import Bus
from service.contract import CURSOR_HEADER, HASHED_TOKEN
from service.ingest.copies import Copies
from service.ingest.cursor import Before, Cursor, copy_key, load_cursor, name_id
from service.ingest.left import LeftEpoch, LeftEpochs
from service.ingest.resync import Stands
from service.ingest.source import Epoch

# 2001: an older time is no time, but a number that every mailbox may have.
UIDVALIDITY_TIME: Final = 1_000_000_000
# Mailboxes that went, or were not looked at yet, of one account: each is one look into the bucket.
LOOKS_LIMIT: Final = 1_000
# Names that one mailbox had, one after the other, or mailboxes that were made in the same second.
KIN_LIMIT: Final = 4


@dataclass(frozen=True, slots=True)
class Kin:
    """A mailbox by the name that it had; `proved`: it is the same one, says its server.

    `left`: where it stood, while the name has another mailbox now.
    """

    mailbox: str
    proved: bool
    left: LeftEpoch | None = None


Standing: TypeAlias = Callable[[str], Stands | None]


@dataclass(frozen=True, slots=True)
class _Position:
    mailbox: str
    cursor: Cursor
    seq: int
    left: LeftEpoch | None = None


class Lineage:
    """One account's."""

    def __init__(self, bus: Bus, copies: Copies, account: str) -> None:
        self._bus = bus
        self._copies = copies
        self._account = account
        # By key, those that had a position when this was asked first, or have gone since; None: not looked at yet.
        self._gone: dict[str, _Position | None] | None = None
        self._lock = asyncio.Lock()
        self._left = LeftEpochs(bus.key_value(bus.subjects.cursors), account)
        self._leaves = asyncio.Event()

    def gone(self, mailbox: str) -> None:
        """A mailbox went just now."""
        if self._gone is not None:
            key = copy_key(self._account, mailbox)
            self._gone.pop(key, None)
            self._gone[key] = None

    async def left(self, mailbox: str, cursor: Cursor, seq: int) -> list[str]:
        """A mailbox is about to begin another epoch. The snapshots that nobody needs from now on. Raises Transient."""
        dropped = await self._left.add(LeftEpoch(mailbox, cursor, seq))
        self._leaves.set()
        self._leaves = asyncio.Event()
        return dropped

    async def entered(self, mailbox: str, epoch: Epoch) -> list[str]:
        """A mailbox is about to be in an epoch, which it may have left before. The snapshots that nobody needs from
        now on. Raises Transient."""
        return await self._left.drop(lambda one: one.mailbox == mailbox and _is_in(one.cursor, epoch))

    async def stayed(self, mailbox: str, cursor: Cursor) -> list[str]:
        """A mailbox is in its epoch still, which it was about to leave when something failed. The snapshots that nobody
        else needs from now on. Raises Transient."""

        def is_its_own(one: LeftEpoch) -> bool:
            # Not by UIDVALIDITY alone: the epoch before may have had the same, and another mailbox be in it.
            here = cursor.uidvalidity, cursor.turn
            return one.mailbox == mailbox and (one.cursor.uidvalidity, one.cursor.turn) == here

        return await self._left.drop(is_its_own)

    async def taken(self, mailbox: str, before: Before) -> None:
        """A mailbox is about to begin by what was known in epochs that others have left. Raises Transient."""
        await self._left.take(mailbox, before)

    async def settled(self, mailbox: str, snapshot: str) -> bool:
        """A mailbox is done with an epoch that it has left, or with another's. Whether its snapshot stays for others.

        Raises Transient.
        """
        return await self._left.settle(mailbox, snapshot)

    async def wait_left(self, mailbox: str, epoch: Epoch) -> None:
        """Until a mailbox has left an epoch that another one is in now. Raises Transient."""
        while True:
            leaves = self._leaves
            if any(one.mailbox == mailbox and _is_in(one.cursor, epoch) for one in await self._left.all()):
                return
            await leaves.wait()

    async def kin(self, mailbox: str, epoch: Epoch, there: Collection[str]) -> list[Kin]:
        """Which of the mailboxes that are not `there`, or have left their epoch, this one may have been, its last name
        first. Raises Transient."""
        async with self._lock:
            gone = await self._known()
            living = {copy_key(self._account, name) for name in [*there, mailbox]}
            # All at once: others go meanwhile. Those that went last first.
            found = await self._looked_up([key for key in reversed(gone) if key not in living])
        left = [
            _Position(one.mailbox, one.cursor, one.seq, left=one)
            for one in await self._left.all()
            if one.mailbox not in {"", mailbox} and one.snapshot
        ]
        return _kin([*found, *left], epoch)[:KIN_LIMIT]

    async def doubles(self, mailbox: str, epoch: Epoch, there: Collection[str], standing: Standing) -> list[Kin]:
        """Those that are `there` and whose position is one of the epoch that this mailbox is in, KIN_LIMIT at the most:
        another may have their names now, and they have not noticed; `proved` where their server says so. Raises
        Transient."""
        found: list[Kin] = []
        unknown: dict[str, str] = {}
        for name in there:
            if name == mailbox:
                continue
            if (stands := standing(name)) is None:
                unknown[copy_key(self._account, name)] = name
            elif _is_same(stands.uidvalidity, stands.box, epoch):
                found.append(Kin(name, proved=_is_proved(stands.box, epoch)))
        async with self._lock:
            known = await self._known()
            looked = await self._looked_up((key for key in unknown if key in known), anew=True)
        found += [Kin(one.mailbox, _is_proved(one.cursor.box, epoch)) for one in looked if _is_in(one.cursor, epoch)]
        # Made in one second, by who moved an account to another server, they tell nothing of each other.
        return found if len(found) <= KIN_LIMIT else []

    async def _known(self) -> dict[str, _Position | None]:
        if self._gone is None:
            self._gone = await self._positions()
        return self._gone

    async def _looked_up(self, keys: Iterable[str], *, anew: bool = False) -> list[_Position]:
        """LOOKS_LIMIT of them at the most. `anew`: they are there, and move on."""
        gone, found = await self._known(), list[_Position]()
        for key in itertools.islice(keys, LOOKS_LIMIT):
            position = gone[key]
            if (position is None or anew) and (copy := await self._copies.load(key)) is not None:
                position = gone[key] = _Position(copy.mailbox, copy.cursor, copy.seq)
            if position is not None and position.mailbox:
                found.append(position)
        return found

    async def _positions(self) -> dict[str, _Position | None]:
        """Of which mailboxes there are copies, and what the log alone knows: a copy follows its commit by seconds."""
        bus = self._bus
        keys = await bus.key_value(bus.subjects.cursors).keys(f"{self._account}.*")
        found: dict[str, _Position | None] = dict.fromkeys(keys)
        events = f"{bus.subjects.prefix}.in.{self._account}"
        for subject in await bus.queued(bus.subjects.stream_in, f"{events}.*.reset"):
            token = subject.split(".")[3]
            # A name too long for a token is known by its copy alone.
            name = unquote(token)
            if copy_key(self._account, name) in found or token.startswith(HASHED_TOKEN):
                continue
            tail = await bus.log.tail(f"{events}.{token}.*")
            cursor = load_cursor(tail.headers.get(CURSOR_HEADER, "")) if tail is not None else None
            if tail is not None and cursor is not None:
                found[copy_key(self._account, name)] = _Position(name, cursor, tail.seq)
        return found


def _is_proved(box: str, epoch: Epoch) -> bool:
    return bool(box) and box == epoch.mailbox_id


def _is_same(uidvalidity: int, box: str, epoch: Epoch) -> bool:
    if box and epoch.mailbox_id:
        return _is_proved(box, epoch)
    return uidvalidity == epoch.uidvalidity > UIDVALIDITY_TIME


def _is_in(cursor: Cursor, epoch: Epoch) -> bool:
    return _is_same(cursor.uidvalidity, cursor.box, epoch)


def _kin(gone: Iterable[_Position], epoch: Epoch) -> list[Kin]:
    # Renamed again and again it is in the log under each of its names: the last one knows the most.
    last_first = sorted((one for one in gone if _is_in(one.cursor, epoch)), key=lambda one: one.seq, reverse=True)
    proved = [one for one in last_first if one.cursor.box and epoch.mailbox_id]
    told = proved or _told(last_first)
    return [Kin(one.mailbox, proved=bool(proved), left=one.left) for one in told]


def _told(last_first: Sequence[_Position]) -> list[_Position]:
    """Of several only those have a chance that a message can speak for; one mailbox's last name needs none for it."""
    succeeded: set[str] = set()
    last: list[_Position] = []
    for one in last_first:
        if name_id(one.mailbox) not in succeeded:
            last.append(one)
        succeeded.add(one.cursor.former)
    return [one for one in last_first if one.cursor.fingerprint or last == [one]]
