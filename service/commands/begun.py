"""From which UID on a command under an id copies: noted before it does, so that a second time finds its own copies.

Used by transfer.py where a server has no MOVE. Whoever knows a mail's Message-ID and size may put another one of both
where it is going to: what lay there before the command began is never taken for its copy. The notes of an account
stand in the bucket `mail-after`, in one key; a note goes when its command is done.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from service.bus import Conflict, KeyValue
from service.contract import mailbox_id, request_key
from service.errors import Transient

# What processes that were killed left: commands of an account go one after the other.
KEPT_LIMIT: Final = 64
CONFLICTS_LIMIT: Final = 5


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """`into`, `first`: UIDVALIDITY and UIDNEXT of the mailbox that the messages of `source` go to."""

    command: str
    source: str
    into: int
    first: int


_DECODER: Final = msgspec.json.Decoder(list[_Note])


class Beginnings:
    """Of one command; `command` names it by its verb and id."""

    def __init__(self, bucket: KeyValue, account: str, command: str) -> None:
        self._bucket = bucket
        self._key = f"{account}.begun"
        self._command = request_key(account, command)

    async def earlier(self, source: str, *, into: int, first: int) -> int | None:
        """Above which UID an earlier try began to copy from `source`; None, and noted, where there was none.

        `into`, `first`: how the mailbox that the copies go to is now. Raises Transient.
        """
        mine = _Note(self._command, mailbox_id(source), into, first)
        found: list[int] = []

        def begin(notes: list[_Note]) -> list[_Note]:
            found[:] = [one.first for one in notes if msgspec.structs.replace(one, first=first) == mine]
            return notes if found else [*notes, mine][-KEPT_LIMIT:]

        await self._change(begin)
        return found[0] if found else None

    async def done(self) -> None:
        """Forget them; a note that stays is some bytes, for a while."""
        with suppress(Transient):
            await self._change(lambda notes: [one for one in notes if one.command != self._command])

    async def _change(self, change: Callable[[list[_Note]], list[_Note]]) -> None:
        for _ in range(CONFLICTS_LIMIT):
            entry = await self._bucket.get(self._key)
            notes = _load(entry.value) if entry is not None else []
            changed = change(notes)
            if changed == notes:
                return
            with suppress(Conflict):
                value = msgspec.json.encode(changed)
                if entry is None:
                    await self._bucket.create(self._key, value)
                else:
                    await self._bucket.update(self._key, value, entry.revision)
                return
        raise Transient("other processes change the account's notes all the time", where=self._key, remedy="ask again")


def _load(value: bytes) -> list[_Note]:
    try:
        return _DECODER.decode(value)
    except msgspec.MsgspecError:
        return []
