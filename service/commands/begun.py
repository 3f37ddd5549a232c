"""What is known of a command under an id: where it began to put messages, and what it was answered.

Used by repeat.py, and by transfer.py and append.py through it. Whoever knows a mail's Message-ID and size may put
another one of both where it is going to: what lay there before the command began is never taken for its copy. A
command's record stands in the bucket `mail-sends`, under a key of its own, for as long as requests are remembered.
"""

import hashlib
from typing import Final

import msgspec

from service.bus import Conflict, KeyValue, ServiceError
from service.commands.errors import problem
from service.contract import mailbox_id, request_key
from service.errors import Transient

ID_FIELD: Final = "Nats-Msg-Id"


class Began(msgspec.Struct, frozen=True, array_like=True):
    """`into`, `first`: UIDVALIDITY and UIDNEXT of the mailbox that messages of `source` go to; 0 where nobody knows."""

    source: str
    into: int
    first: int


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """`digest`: of the request; `answer`: once it is done."""

    digest: str
    began: list[Began] = []
    answer: str | None = None


_DECODER: Final = msgspec.json.Decoder(_Record)


class Beginnings:
    """Of one command, while it is under way; `command` names it by its verb and id."""

    def __init__(self, bucket: KeyValue, account: str, command: str, payload: bytes) -> None:
        self._bucket = bucket
        self._key = f"{account}.cmd-{request_key(account, command)}"
        self._revision = 0
        self._record = _Record(hashlib.sha256(payload).hexdigest()[:32])

    async def answered(self) -> bytes | None:
        """What it was answered, once it was done.

        Raises ServiceError 400 where another command came under the id, Transient.
        """
        entry = await self._bucket.get(self._key)
        if entry is None:
            return None
        record = _load(entry.value)
        if record is None:
            raise uncertain()
        if record.digest != self._record.digest:
            raise problem(400, ID_FIELD, "another command came under this id: give each its own")
        self._record, self._revision = record, entry.revision
        return None if record.answer is None else record.answer.encode()

    async def earlier(self, source: str, *, into: int, first: int) -> Began | None:
        """Where an earlier try began to put messages of `source`; None, and noted, where there was none.

        `into`, `first`: how the mailbox that they go to is now. Raises Transient.
        """
        source_id = mailbox_id(source) if source else ""
        for one in self._record.began:
            # A target that was made anew since has nothing of what was put into it.
            if one.source == source_id and one.into == into:
                return one
        began = [*(one for one in self._record.began if one.source != source_id), Began(source_id, into, first)]
        await self._write(msgspec.structs.replace(self._record, began=began))
        return None

    async def done(self, answer: bytes) -> None:
        """It is answered so from now on. Raises Transient."""
        await self._write(msgspec.structs.replace(self._record, began=[], answer=answer.decode()))

    async def _write(self, record: _Record) -> None:
        value = msgspec.json.encode(record)
        try:
            if self._revision:
                self._revision = await self._bucket.update(self._key, value, self._revision)
            else:
                self._revision = await self._bucket.create(self._key, value)
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
