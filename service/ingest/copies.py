"""Cursor copies: what a mailbox goes on from when the log's retention has passed its last event.

Written within seconds of a commit by one task for the whole process, by compare-and-set, never backwards.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import unquote

from service.bus import Conflict, KeyValue
from service.clock import Clock
from service.contract import HASHED_TOKEN, mailbox_token
from service.errors import Inward, Transient
from service.ingest.cursor import Copy, Cursor, copy_key, dump_copy, load_copy
from service.ingest.erased import Erased, dump_erased, erased_key, load_erased
from service.observe import log, step

FLUSH_EVERY_S: Final = 2.0
CONFLICTS_LIMIT: Final = 5


class Copies:
    """The bucket `mail-cursors`."""

    def __init__(self, bucket: KeyValue, clock: Clock) -> None:
        self._bucket = bucket
        self._clock = clock
        self._pending: dict[str, Copy] = {}  # one a mailbox: the newest

    async def load(self, key: str) -> Copy | None:
        """The copy of a mailbox, also one that still waits to be written; None where there is none."""
        entry = await self._bucket.get(key)
        there, waiting = load_copy(entry.value) if entry else None, self._pending.get(key)
        if waiting is None or (there and there.stream_created == waiting.stream_created and not _newer(waiting, there)):
            return there
        return waiting

    def note(self, key: str, copy: Copy) -> None:
        """Have this copy written soon."""
        self._pending[key] = copy

    async def run(self) -> None:
        """Write what was noted, for ever."""
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all that was noted; what NATS would not take now stays noted."""
        for key in list(self._pending):
            copy = self._pending.get(key)
            if copy is None:
                continue  # replaced meanwhile
            try:
                await self._write(key, copy, partial(self._waits, key, copy))
            except Transient as exc:
                log.debug("cursor_copy_waits", error=str(exc))
                return
            if self._waits(key, copy):
                del self._pending[key]

    def _waits(self, key: str, copy: Copy) -> bool:
        return self._pending.get(key) is copy

    async def write(self, key: str, copy: Copy) -> None:
        """Write one copy, unless a newer one of the same stream is there. Raises Transient."""
        await self._write(key, copy, lambda: True)

    async def _write(self, key: str, copy: Copy, counts: Callable[[], bool]) -> None:
        step("copy.before")
        for _ in range(CONFLICTS_LIMIT):
            # Whoever wrote meanwhile may have been the one that took this copy back.
            if not counts():
                break
            entry = await self._bucket.get(key)
            try:
                if entry is None:
                    await self._bucket.create(key, dump_copy(copy))
                    break
                there = load_copy(entry.value)
                if there and there.stream_created == copy.stream_created and not _newer(copy, there):
                    break
                await self._bucket.update(key, dump_copy(copy), entry.revision)
                break
            except Conflict:
                continue
        step("copy.done")

    async def stands_at(self, account: str, seq: int, *, stream_created: datetime) -> bool:
        """Whether the copy of a mailbox of this account is of the event at `seq`. Raises Transient."""
        for key in await self._bucket.keys(f"{account}.*"):
            entry = await self._bucket.get(key)
            copy = load_copy(entry.value) if entry is not None else None
            if copy is not None and (copy.seq, copy.stream_created) == (seq, stream_created):
                return True
        return False

    async def write_for(
        self, account: str, token: str, seq: int, cursor: Cursor, *, stream_created: datetime, told: str = ""
    ) -> None:
        """Write the copy of a mailbox that nobody follows: of the event at `seq`, as a start would do.

        A token that is a hash tells no name: then nothing is written, unless an earlier copy has it, or it is `told`
        and is that. Raises Transient.
        """
        earlier: Copy | None = None
        for key in await self._bucket.keys(f"{account}.*"):
            entry = await self._bucket.get(key)
            copy = load_copy(entry.value) if entry is not None else None
            if copy is not None and copy.mailbox and mailbox_token(copy.mailbox) == token:
                earlier = copy
        if earlier is not None:
            mailbox = earlier.mailbox
        else:
            mailbox = told if token.startswith(HASHED_TOKEN) else unquote(token)
            if mailbox_token(mailbox) != token:
                return
        is_same = earlier is not None and earlier.stream_created == stream_created
        start = earlier.start if earlier is not None and is_same else cursor
        await self.write(copy_key(account, mailbox), Copy(stream_created, seq, cursor, start, mailbox))

    async def erased(self, filter_subject: str, *, stream_created: datetime) -> list[Erased]:
        """The events of a mailbox that were erased, in their order. Raises Transient."""
        entry = await self._bucket.get(erased_key(filter_subject))
        return load_erased(entry.value, stream_created=stream_created) if entry is not None else []

    async def keep_erased(
        self, filter_subject: str, events: Iterable[Erased], *, stream_created: datetime, first_seq: int
    ) -> None:
        """Keep what events say of the known state, before they go; what the log has forgotten goes.

        Raises Permanent where it is too much, Transient.
        """
        key, more = erased_key(filter_subject), {one.seq: one for one in events}
        for _ in range(CONFLICTS_LIMIT):
            entry = await self._bucket.get(key)
            there = load_erased(entry.value, stream_created=stream_created) if entry is not None else []
            kept = {one.seq: one for one in there if one.seq >= first_seq} | more
            value = dump_erased(kept.values(), stream_created=stream_created, where=filter_subject)
            try:
                if entry is None:
                    await self._bucket.create(key, value)
                else:
                    await self._bucket.update(key, value, entry.revision)
            except Conflict:
                continue
            return
        raise Inward("another erases from this mailbox", where=filter_subject, remedy="begin again")

    async def replace(self, key: str, copy: Copy) -> None:
        """Write one copy even where it goes backwards: the log was rolled back, and the log is right."""
        entry = await self._bucket.get(key)
        try:
            if entry is None:
                await self._bucket.create(key, dump_copy(copy))
            else:
                await self._bucket.update(key, dump_copy(copy), entry.revision)
        except Conflict as exc:
            raise Inward("another wrote the cursor's copy meanwhile", where="mail-cursors") from exc
        self._pending.pop(key, None)  # what the log has lost


def _newer(copy: Copy, there: Copy) -> bool:
    """Of the same place in the log, what names another snapshot is newer."""
    return copy.seq > there.seq or (copy.seq == there.seq and copy.cursor.state != there.cursor.state)
