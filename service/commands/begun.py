"""What is known of a command under an id: where it began to put messages, and what it was answered.

Used by repeat.py, and by transfer.py and append.py through it. Whoever knows a mail's Message-ID and size may put
another one of both where it is going to: what lay there before the command began is never taken for its copy. A
command's record stands in the bucket `mail-sends`, under a key of its own, for as long as requests are remembered.
It names the process that is at it: an account may move to another one while its mail server still copies.
"""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from service.bus import Conflict, KeyValue, ServiceError
from service.clock import Clock
from service.commands.errors import problem
from service.contract import mailbox_id, request_key
from service.errors import Transient

ID_FIELD: Final = "Nats-Msg-Id"
# Longer than any who asks will wait; what is under way then is given up, and its connection with it.
COMMAND_LIMIT_S: Final = 120.0


class Began(msgspec.Struct, frozen=True, array_like=True):
    """`into`, `first`: UIDVALIDITY and UIDNEXT of the mailbox that messages of `source` go to; 0 where nobody knows."""

    source: str
    into: int
    first: int


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """`digest`: of the request; `answer`: once it is done; `writer`: who is at it, "" for nobody; `at`: since when, in
    seconds of Unix time."""

    digest: str
    began: list[Began] = []
    answer: str | None = None
    writer: str = ""
    at: float = 0.0


_DECODER: Final = msgspec.json.Decoder(_Record)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where commands are noted. `writer`: this process, as `lives` is asked for others."""

    bucket: KeyValue
    writer: str
    lives: Callable[[str], Awaitable[bool]]
    clock: Clock


class Beginnings:
    """Of one command, while it is under way; `command` names it by its verb and id."""

    def __init__(self, keeper: Keeper, account: str, command: str, payload: bytes) -> None:
        self._keeper = keeper
        self._key = f"{account}.cmd-{request_key(account, command)}"
        self._revision = 0
        # Noted, and claimed, by this try: the time of one before, of the same process, may be over.
        self._noted: set[str] = set()
        self._claimed = False
        self._record = _Record(hashlib.sha256(payload).hexdigest()[:32])

    async def answered(self) -> bytes | None:
        """What it was answered, once it was done.

        Raises ServiceError 400 where another command came under the id, 503 where another process is at it, Transient.
        """
        entry = await self._keeper.bucket.get(self._key)
        if entry is None:
            return None
        record = _load(entry.value)
        if record is None:
            raise uncertain()
        if record.digest != self._record.digest:
            raise problem(400, ID_FIELD, "another command came under this id: give each its own")
        self._record, self._revision = record, entry.revision
        if record.answer is not None:
            return record.answer.encode()
        left_s = record.at + COMMAND_LIMIT_S - self._keeper.clock.now().timestamp()
        if record.writer not in ("", self._keeper.writer) and left_s > 0 and await self._keeper.lives(record.writer):
            raise problem(503, ID_FIELD, f"another process is at this command: ask again, within {left_s:.0f} s")
        return None

    async def claim(self) -> None:
        """Before anything is done that would be done twice. Raises Transient where another process came first."""
        if not self._claimed:
            await self._write(self._record)

    async def earlier(self, source: str, *, into: int, first: int) -> Began | None:
        """Where an earlier try began to put messages of `source`; None, and noted, where there was none.

        `into`, `first`: how the mailbox that they go to is now. Raises Transient.
        """
        source_id = mailbox_id(source) if source else ""
        for one in self._record.began:
            # A target that was made anew since has nothing of what was put into it.
            if one.source == source_id and one.into == into:
                await self.claim()
                return one
        began = [*(one for one in self._record.began if one.source != source_id), Began(source_id, into, first)]
        await self._write(msgspec.structs.replace(self._record, began=began))
        self._noted.add(source_id)
        return None

    def refused(self, source: str) -> None:
        """The mail server has put nothing of `source` there (RFC 9051 6.4.7); what an earlier try did is still sought.

        It is kept by `left`.
        """
        if (source_id := mailbox_id(source) if source else "") in self._noted:
            began = [one for one in self._record.began if one.source != source_id]
            self._record = msgspec.structs.replace(self._record, began=began)

    async def done(self, answer: bytes) -> None:
        """It is answered so from now on. Raises Transient."""
        await self._write(msgspec.structs.replace(self._record, began=[], answer=answer.decode()))

    async def left(self) -> None:
        """This process is not at it any more, and it has no answer: any other one may try."""
        if self._record.writer == self._keeper.writer:
            with suppress(Transient):
                await self._keep(msgspec.structs.replace(self._record, writer="", at=0.0))

    async def _write(self, record: _Record) -> None:
        at = self._keeper.clock.now().timestamp()
        await self._keep(msgspec.structs.replace(record, writer=self._keeper.writer, at=at))
        self._claimed = True

    async def _keep(self, record: _Record) -> None:
        value = msgspec.json.encode(record)
        try:
            if self._revision:
                self._revision = await self._keeper.bucket.update(self._key, value, self._revision)
            else:
                self._revision = await self._keeper.bucket.create(self._key, value)
        except Conflict as exc:
            raise Transient("another process does this command", where=self._key, remedy="ask again") from exc
        self._record = record


def uncertain() -> ServiceError:
    """An earlier try may have done it, and nothing tells whether it did."""
    message = "an earlier try may have done this, and nothing tells whether it did: look; to do it, give another id"
    return problem(409, ID_FIELD, message)


def _load(value: bytes) -> _Record | None:
    try:
        return _DECODER.decode(value)
    except msgspec.MsgspecError:
        return None
