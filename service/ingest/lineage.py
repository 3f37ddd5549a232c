"""Positions of an account's mailboxes that are not there any more: what a mailbox may have been called until now.

Used by build for a mailbox that has no position of its own. By MAILBOXID (RFC 8474 4.2), elsewhere by a UIDVALIDITY
that no other of them has and that looks like a time, as servers make them: then epochs.py compares messages.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from service.bus import KeyValue
from service.ingest.copies import Copies
from service.ingest.cursor import Copy, copy_key
from service.ingest.source import Epoch

# 2001: an older time is no time, but a number that every mailbox may have.
UIDVALIDITY_TIME: Final = 1_000_000_000
# Mailboxes that went, of one account: each is one look into the bucket, once.
GONE_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Kin:
    """A mailbox that is gone, by its name; `proved`: it is the same one, says its server."""

    mailbox: str
    proved: bool


class Lineage:
    """One account's."""

    def __init__(self, bucket: KeyValue, copies: Copies, account: str) -> None:
        self._bucket = bucket
        self._copies = copies
        self._account = account
        # By key, those that had a position when this was asked first, or have gone since; None: not looked at yet.
        self._gone: dict[str, Copy | None] | None = None
        self._lock = asyncio.Lock()

    def gone(self, mailbox: str) -> None:
        """A mailbox went just now."""
        if self._gone is not None:
            self._gone[copy_key(self._account, mailbox)] = None

    async def kin(self, mailbox: str, epoch: Epoch, there: Collection[str]) -> Kin | None:
        """Which of the mailboxes that are not `there` this one was; None for none, or several. Raises Transient."""
        async with self._lock:
            if self._gone is None:
                self._gone = dict.fromkeys(await self._bucket.keys(f"{self._account}.*"))
            living = {copy_key(self._account, name) for name in [*there, mailbox]}
            found: list[Kin] = []
            for key in [key for key in self._gone if key not in living][:GONE_LIMIT]:
                copy = self._gone[key]
                if copy is None:
                    copy = self._gone[key] = await self._copies.load(key)
                if copy is not None and copy.mailbox and (kin := _kin(copy, epoch)) is not None:
                    found.append(kin)
        proved = [kin for kin in found if kin.proved]
        return next(iter(proved or found)) if len(proved or found) == 1 else None


def _kin(copy: Copy, epoch: Epoch) -> Kin | None:
    cursor = copy.cursor
    if cursor.box and epoch.mailbox_id:
        return Kin(copy.mailbox, proved=True) if cursor.box == epoch.mailbox_id else None
    same = cursor.uidvalidity == epoch.uidvalidity > UIDVALIDITY_TIME
    return Kin(copy.mailbox, proved=False) if same else None
