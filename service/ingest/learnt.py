"""What a maildrop shows of the mail that IMAP has told, learnt while both work and kept on the bus.

For servers whose POP3 numbers mail otherwise than their IMAP does. Learnt in a session of its own (learn): each unique
id that was listed before IMAP had caught up once more is of mail that is told, or is none of ours to tell. What IMAP
tells after that is in the log, with a print (prints.py). So whoever stands in (paired.py) knows a message by its id, or
by TOP and its print; all others are new. Eight bytes a message, as an object in `mail-state` that a key names.
Rules: docs/decisions/0018-numbers-for-what-pop3-announces.md.
"""

import asyncio
import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Annotated, Final

import msgspec

from service.bus import BlobStore, Conflict, EventLog, KeyValue
from service.clock import Clock
from service.contract import CURSOR_HEADER, NUMBERS_FROM, EventType
from service.errors import Permanent, Transient
from service.ingest.copies import Copies
from service.ingest.cursor import Cursor, copy_key, load_cursor
from service.ingest.marks import identity_in, print_in
from service.ingest.notes import load_note
from service.ingest.prints import CONTENT_LINES, print_of
from service.ingest.replay import told
from service.mime import received_at
from service.pop3 import NO_IDENTITY, Door, Listing, Session, linked_uid

VERSION: Final = b"\x02"
OWNER_BYTES: Final = 16
KEY_BYTES: Final = 8
# Messages that left the maildrop and may be shown again (Gmail's `recent:`): so many stay known.
GONE_LIMIT: Final = 10_000
# So many messages prove that both ways show the same mail; and so far back in the log their events are looked for.
PROOFS: Final = 5
PROOF_EVENTS: Final = 10_000
AT_ONCE: Final = 5_000
# What a server makes its unique ids of is a setting of its own, which seldom changes.
LINKED_S: Final = 86_400.0
NEVER: Final = datetime.min.replace(tzinfo=UTC)


def key_of(identity: bytes) -> int:
    """Of an identity in a listing."""
    return int.from_bytes(identity[:KEY_BYTES], "big")


class Keys:
    """Messages of a maildrop that are known: those that were there when it was looked at last, and some before them."""

    def __init__(self, there: "array[int] | None" = None, gone: "array[int] | None" = None) -> None:
        """`there`: in any order; `gone`: the longest gone first."""
        self._there = array("Q", sorted(there)) if there else array("Q")
        self._gone = gone if gone is not None else array("Q")
        self._gone_set = frozenset(self._gone)

    def __len__(self) -> int:
        return len(self._there) + len(self._gone)

    def has(self, key: int) -> bool:
        """Whether a message is known."""
        at = bisect_left(self._there, key)
        return (at < len(self._there) and self._there[at] == key) or key in self._gone_set

    def then(self, there: "array[int]") -> "Keys":
        """As it is after another look, which found these."""
        now = frozenset(there)
        gone = [key for key in self._gone if key not in now] + [key for key in self._there if key not in now]
        return Keys(there, array("Q", gone[-GONE_LIMIT:]))

    def dump(self, owner: str) -> bytes:
        """The object's bytes. `owner`: whose they are: no two accounts' objects are equal, nor go with one another."""
        return _head(owner) + len(self._there).to_bytes(4, "big") + _bytes(self._there) + _bytes(self._gone)

    @classmethod
    def load(cls, data: bytes, owner: str) -> "Keys | None":
        """What the object holds; None where it is another's, damaged, or of another version."""
        head = _head(owner)
        count, rest = int.from_bytes(data[len(head) : len(head) + 4], "big"), data[len(head) + 4 :]
        if not data.startswith(head) or len(rest) % KEY_BYTES or len(rest) < KEY_BYTES * count:
            return None
        return cls(_array(rest[: KEY_BYTES * count]), _array(rest[KEY_BYTES * count :]))


def _head(owner: str) -> bytes:
    return VERSION + hashlib.sha256(owner.encode()).digest()[:OWNER_BYTES]


def _bytes(keys: "array[int]") -> bytes:
    return b"".join(key.to_bytes(KEY_BYTES, "big") for key in keys)


def _array(data: bytes) -> "array[int]":
    return array("Q", [int.from_bytes(data[at : at + KEY_BYTES], "big") for at in range(0, len(data), KEY_BYTES)])


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the key says. `seq`: what IMAP told later has its print in the log; `before`: as it was one look earlier.

    `proved`: both ways have shown the same message with the same print.
    """

    stream_created: Annotated[datetime, msgspec.Meta(tz=True)]
    source: str
    uidvalidity: int
    rollbacks: int
    seq: int
    before: int
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    id: str = ""
    proved: bool = False
    v: int = 1


@dataclass(slots=True)
class Told:
    """What the log says of mail since a place in it: prints of what IMAP told, how often; keys of what POP3 did.

    `unprinted`: UIDs of what IMAP told and could not read: POP3 may be able to.
    """

    prints: Counter[str] = field(default_factory=Counter)
    keys: set[int] = field(default_factory=set)
    unprinted: set[int] = field(default_factory=set)

    def take(self, kind: str, state: str) -> None:
        """An event: its kind, and what its `Mail-State` says."""
        note = load_note(state)
        if note is None or kind != EventType.RECEIVED:
            if note is not None and kind == EventType.REMOVED:
                self.unprinted.discard(note.uid)
            return
        if note.uid >= NUMBERS_FROM:
            self.keys.add(key_of(identity_in(note.mark)))
        elif print := print_in(note.mark):
            self.prints[print] += 1
        else:
            self.unprinted.add(note.uid)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What whoever stands in goes by; `at`: when the maildrop was looked at."""

    keys: Keys = field(default_factory=Keys)
    told: Told = field(default_factory=Told)
    at: datetime = NEVER


@dataclass(frozen=True, slots=True)
class Shown:
    """What TOP tells of a message: its print (empty: it has none), and when the server took it."""

    print: str
    date: datetime | None


_RECORD: Final = msgspec.json.Decoder(Record)


class Lesson(Enum):
    """What a look at the maildrop gave: its ids are made of UIDs; there is proof that its mail is IMAP's; not yet."""

    LINKED = auto()
    PROVED = auto()
    NOTHING = auto()


class Learner:
    """One account's INBOX."""

    def __init__(
        self,
        door: Door,
        log: EventLog,
        store: BlobStore,
        records: KeyValue,
        copies: Copies,
        *,
        account: str,
        mailbox: str,
        filter_subject: str,
        clock: Clock,
    ) -> None:
        self._door = door
        self._log = log
        self._store = store
        self._records = records
        self._copies = copies
        self._filter = filter_subject
        self._key = f"{copy_key(account, mailbox)}.pop3"
        self._clock = clock
        # Of which epoch a look showed that ids are made of UIDs, and when.
        self._linked = ("", 0)
        self._linked_at = 0.0

    # -- while both work --------------------------------------------------------------------------------------

    async def learn(self, caught_up: Callable[[], Awaitable[None]]) -> Lesson:
        """Look at the maildrop, unless nothing came since the last time, or its ids are known to be made of UIDs.

        `caught_up`: until IMAP has told all that there is at this moment; raises Transient where it does not. Raises as
        Door.enter does.
        """
        tail = await self._log.tail(self._filter)
        cursor = load_cursor(tail.headers.get(CURSOR_HEADER, "")) if tail is not None else None
        if tail is None or cursor is None:
            return Lesson.NOTHING
        is_fresh = self._clock.monotonic() - self._linked_at < LINKED_S
        if is_fresh and self._linked == (cursor.source, cursor.uidvalidity):
            return Lesson.LINKED
        created = (await self._log.bounds()).created
        old, revision = await self._load()
        if old is not None and not _is_of(old, cursor, created):
            old = None
        if old is not None and old.seq == tail.seq:
            return Lesson.PROVED if old.proved else Lesson.NOTHING
        before, at = (old.seq if old is not None else tail.seq), self._clock.now()
        linked = False

        def see(rows: list[tuple[int, bytes]]) -> None:
            nonlocal linked
            linked = linked or any(linked_uid(uidl, cursor.uidvalidity) for _, uidl in rows)

        session = await self._door.enter()
        try:
            listing = await self._door.listed(session, see)
            proved = old is not None and old.proved
            if not (proved or linked):
                since = min(before, max(0, tail.seq - PROOF_EVENTS))
                proved = await _proves(
                    session, listing, await self._told(since, tail.seq), self._door.options.message_limit
                )
        except BaseException:
            self._door.abort(session)
            raise
        await self._door.leave(session)
        if linked:
            await self._forget(old, revision)
            self._linked, self._linked_at = (cursor.source, cursor.uidvalidity), self._clock.monotonic()
            return Lesson.LINKED
        await caught_up()
        keys = (await self._keys(old) if old is not None else None) or Keys()
        keys = await asyncio.to_thread(keys.then, await _keys_of(listing))
        id = await self._store.put(await asyncio.to_thread(keys.dump, self._key), now=self._clock.now())
        place = (created, cursor.source, cursor.uidvalidity, cursor.rollbacks)
        record = Record(*place, seq=tail.seq, before=before, at=at, id=id, proved=proved)
        passed = await self._write(record, revision, old)
        if passed:
            with suppress(Transient):
                await self._store.delete(passed)
        return Lesson.PROVED if proved else Lesson.NOTHING

    async def _forget(self, old: Record | None, revision: int) -> None:
        if revision:
            await self._records.delete(self._key)
        if old is not None:
            with suppress(Transient):
                await self._store.delete(old.id)

    async def is_proved(self) -> bool:
        """Whether there is something to go by. Raises Transient."""
        record, _ = await self._load()
        return record is not None and record.proved

    async def _write(self, record: Record, revision: int, old: Record | None) -> str:
        """Gives the object that no record names any more; empty where there is none. Raises Transient."""
        value = msgspec.json.encode(record)
        try:
            if revision:
                await self._records.update(self._key, value, revision)
            else:
                await self._records.create(self._key, value)
        except Conflict:
            # Another process learnt meanwhile: what it found is as good, and may be the same.
            there, _ = await self._load()
            return "" if there is not None and there.id == record.id else record.id
        return old.id if old is not None and old.id != record.id else ""

    # -- while one does not -----------------------------------------------------------------------------------

    async def recall(self, cursor: Cursor, seq: int) -> Learnt | None:
        """What is known at the cursor, which stands at `seq`; None where that is not enough. Raises Transient."""
        record, _ = await self._load()
        bounds = await self._log.bounds()
        if record is None or not record.proved or not _is_of(record, cursor, bounds.created):
            return None
        if not bounds.first_seq - 1 <= record.before <= seq:
            return None
        keys = await self._keys(record)
        return Learnt(keys, await self._told(record.before, seq), record.at) if keys is not None else None

    async def _load(self) -> tuple[Record | None, int]:
        entry = await self._records.get(self._key)
        if entry is None:
            return None, 0
        try:
            return _RECORD.decode(entry.value), entry.revision
        except msgspec.MsgspecError:
            return None, entry.revision

    async def _keys(self, record: Record) -> Keys | None:
        try:
            data = await self._store.get(record.id)
        except Permanent:
            return None
        return await asyncio.to_thread(Keys.load, data, self._key)

    async def _told(self, after: int, last: int) -> Told:
        found = Told()
        created = (await self._log.bounds()).created
        erased = await self._copies.erased(self._filter, stream_created=created)
        async with aclosing(told(self._log, erased, self._filter, after=after, last=last)) as events:
            async for event in events:
                found.take(event.kind, event.state)
        return found


def _is_of(record: Record, cursor: Cursor, created: datetime) -> bool:
    return (record.stream_created, record.source, record.uidvalidity, record.rollbacks) == (
        created,
        cursor.source,
        cursor.uidvalidity,
        cursor.rollbacks,
    )


async def _keys_of(listing: Listing) -> "array[int]":
    keys = array("Q")
    for at in range(len(listing)):
        if (identity := listing.identity(at)) != NO_IDENTITY:
            keys.append(key_of(identity))
        if at % AT_ONCE == 0:
            await asyncio.sleep(0)
    return keys


async def _proves(session: Session, listing: Listing, told: Told, message_limit: int) -> bool:
    """Whether one of the newest messages is one that IMAP told, as it says itself."""
    newest = range(max(0, len(listing) - PROOFS), len(listing))
    shown: dict[int, Shown] = {}
    await show(session, listing, newest, message_limit, shown)
    return any(one.print in told.prints for one in shown.values())


async def show(
    session: Session, listing: Listing, places: Sequence[int], message_limit: int, found: dict[int, Shown]
) -> None:
    """What messages show by TOP goes to `found`, by index, as it comes. Raises Transient."""
    at_number = {listing.numbers[at]: at for at in places}

    def take(number: int, top: bytes) -> None:
        at = at_number[number]
        # Of what is too large IMAP reads the header alone.
        found[at] = Shown(print_of(top, whole=listing.sizes[at] <= message_limit), received_at(top))

    await session.read(list(at_number), take, whole=False, lines=CONTENT_LINES)
