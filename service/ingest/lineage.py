"""Positions of an account's mailboxes that are not there any more: what a mailbox may have been called until now.

Used by build for a mailbox that has no position of its own, or another's number. By MAILBOXID (RFC 8474 4.2),
elsewhere by a UIDVALIDITY that looks like a time, as servers make them: then epochs.py compares messages.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from service.bus import Bus
from service.contract import CURSOR_HEADER, HASHED_TOKEN
from service.ingest.copies import Copies
from service.ingest.cursor import Cursor, copy_key, load_cursor
from service.ingest.source import Epoch

# 2001: an older time is no time, but a number that every mailbox may have.
UIDVALIDITY_TIME: Final = 1_000_000_000
# Mailboxes that went, of one account: each is one look into the bucket, once.
GONE_LIMIT: Final = 1_000
# Names that one mailbox had, one after the other, or mailboxes that were made in the same second.
KIN_LIMIT: Final = 4


@dataclass(frozen=True, slots=True)
class Kin:
    """A mailbox that is gone, by its name; `proved`: it is the same one, says its server."""

    mailbox: str
    proved: bool


@dataclass(frozen=True, slots=True)
class _Position:
    mailbox: str
    cursor: Cursor
    seq: int


class Lineage:
    """One account's."""

    def __init__(self, bus: Bus, copies: Copies, account: str) -> None:
        self._bus = bus
        self._copies = copies
        self._account = account
        # By key, those that had a position when this was asked first, or have gone since; None: not looked at yet.
        self._gone: dict[str, _Position | None] | None = None
        self._lock = asyncio.Lock()

    def gone(self, mailbox: str) -> None:
        """A mailbox went just now."""
        if self._gone is not None:
            self._gone[copy_key(self._account, mailbox)] = None

    async def kin(self, mailbox: str, epoch: Epoch, there: Collection[str]) -> list[Kin]:
        """Which of the mailboxes that are not `there` this one may have been, its last name first. Raises Transient."""
        async with self._lock:
            if self._gone is None:
                self._gone = await self._positions()
            living = {copy_key(self._account, name) for name in [*there, mailbox]}
            found: list[_Position] = []
            for key in [key for key in self._gone if key not in living][:GONE_LIMIT]:
                position = self._gone[key]
                if position is None and (copy := await self._copies.load(key)) is not None:
                    position = self._gone[key] = _Position(copy.mailbox, copy.cursor, copy.seq)
                if position is not None and position.mailbox:
                    found.append(position)
        return _kin(found, epoch)[:KIN_LIMIT]

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


def _kin(gone: Iterable[_Position], epoch: Epoch) -> list[Kin]:
    # Renamed again and again it is in the log under each of its names: the last one knows the most.
    last_first = sorted(gone, key=lambda one: one.seq, reverse=True)
    if epoch.mailbox_id and (same := [one for one in last_first if one.cursor.box == epoch.mailbox_id]):
        return [Kin(one.mailbox, proved=True) for one in same]
    alike = [
        one
        for one in last_first
        if one.cursor.uidvalidity == epoch.uidvalidity > UIDVALIDITY_TIME
        # It says what it is, and is another.
        and not (one.cursor.box and epoch.mailbox_id)
    ]
    # Of several only those have a chance that a message can speak for.
    told = [one for one in alike if one.cursor.fingerprint] if len(alike) > 1 else alike
    return [Kin(one.mailbox, proved=False) for one in told]
