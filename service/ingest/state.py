"""What is known of a mailbox ⇄ the bytes of its object in the bucket `mail-state`. Pure.

Written and read by memory.py. A version byte, then a packed struct: runs of UIDs and flag sets compressed, a mark of
six bytes for each message as it is, twelve where there is EMAILID; of a maildrop also what seen.py keeps. A million
messages take six megabytes, or twelve, and what their runs take.
"""

import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final

import msgspec

from service.contract import Keywords
from service.ingest.known import Known, Run
from service.ingest.marks import (
    MARK_BYTES,
    NO_MARK,
    Marks,
    Recogniser,
    identity_in,
    packed,
    packed_id,
    packed_mark,
    print_in,
)
from service.ingest.numbers import Numbers
from service.ingest.seen import Seen
from service.ingest.sets import DIGESTS, stand_in

VERSION: Final = b"\x01"
# An object holds at most what a mailbox with 2**24 runs would: nothing that is larger was written here.
RUNS_LIMIT_BYTES: Final = 4 * 2**24


class _File(msgspec.Struct, frozen=True):
    owner: str
    events: int
    sets: list[list[str]]
    first: bytes
    last: bytes
    numbers: bytes
    marks: bytes
    near: bytes
    floor: Annotated[datetime, msgspec.Meta(tz=True)] | None
    ids: bytes = b""
    near_ids: bytes = b""
    seen: bytes = b""
    seen_uids: bytes | None = None
    seen_prints: bytes = b""
    stand_ins: bytes = b""


@dataclass(slots=True)
class State:
    """A mailbox in one epoch. `events`: how many of its log this is the sum of.

    `near`: marks of mail that was there and not announced when the epoch began, all of it that arrived since `floor`;
    what arrived earlier is old. Without a floor everything was announced. `ids`, `near_ids`: what marks have of
    EMAILID; empty where the server has none. `seen`: of a maildrop, all messages that have a UID; None elsewhere.
    `numbers`: those that mail was announced under while POP3 stood in.
    """

    known: Known = field(default_factory=Known)
    marks: Marks = field(default_factory=Marks)
    near: bytes = b""
    floor: datetime | None = None
    events: int = 0
    ids: Marks = field(default_factory=Marks)
    near_ids: bytes = b""
    seen: Seen | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def mark(self, uid: int, mark: str) -> None:
        """Note a message's mark."""
        self.marks.put(uid, packed_mark(mark))
        if (id := packed_id(mark)) != NO_MARK:
            self.ids.put(uid, id)
        identity = identity_in(mark)
        if identity and self.seen is not None:
            if uid > self.seen.top():
                self.seen.put(identity, uid)
            self.seen.tell(uid, packed(print_in(mark)))

    def saved(self) -> None:
        """A snapshot has it: what comes from now on is kept beside it."""
        self.marks, self.ids = Marks(), Marks()
        if self.seen is not None:
            self.seen.renamed = False


_PACK: Final = msgspec.msgpack.Encoder()
_UNPACK: Final = msgspec.msgpack.Decoder(_File)


def dump_state(state: State, owner: str) -> bytes:
    """The object's bytes. `owner` names the mailbox and its epoch: no two mailboxes' objects are equal."""
    runs = state.known.columns()
    file = _File(
        owner=owner,
        events=state.events,
        sets=[sorted(keywords) for keywords in runs.sets],
        first=_packed(runs.first),
        last=_packed(runs.last),
        numbers=_packed(runs.numbers),
        marks=state.marks.column(state.known),
        near=state.near,
        floor=state.floor,
        ids=state.ids.column(state.known) if state.ids else b"",
        near_ids=state.near_ids,
        seen=state.seen.identities if state.seen is not None else b"",
        seen_uids=_packed(state.seen.uids) if state.seen is not None else None,
        seen_prints=state.seen.prints if state.seen is not None else b"",
        stand_ins=state.numbers.dump(),
    )
    return VERSION + _PACK.encode(file)


def load_state(data: bytes, owner: str) -> State | None:
    """What the object holds; None where its owner begins otherwise, where it is damaged, or of a newer version."""
    if data[:1] != VERSION:
        return None
    try:
        file = _UNPACK.decode(data[1:])
        first, last, numbers = (_unpacked(part) for part in (file.first, file.last, file.numbers))
        sets = [frozenset(keywords) for keywords in file.sets]
        uids = _unpacked(file.seen_uids) if file.seen_uids is not None else None
        seen = Seen(file.seen, uids, file.seen_prints) if uids is not None else None
        known = Known(_runs(first, last, numbers, sets))
        stand_ins = Numbers.load(file.stand_ins)
    except (msgspec.MsgspecError, zlib.error, ValueError, IndexError):
        return None
    if not file.owner.startswith(owner) or len(file.marks) != MARK_BYTES * len(known) or len(file.near) % MARK_BYTES:
        return None
    if len(file.ids) not in {0, len(file.marks)} or len(file.near_ids) not in {0, len(file.near)}:
        return None
    ids = Marks.of(known, file.ids) if file.ids else Marks()
    marks = Marks.of(known, file.marks)
    return State(known, marks, file.near, file.floor, file.events, ids, file.near_ids, seen, stand_ins)


def _runs(first: Iterable[int], last: Iterable[int], numbers: Iterable[int], sets: Sequence[Keywords]) -> Iterator[Run]:
    """One at a time: hundreds of thousands of objects at once would hold all threads while they are looked through."""
    below = 0
    for a, b, number in zip(first, last, numbers, strict=True):
        if not below < a <= b:
            raise ValueError("runs out of order")
        below = b
        yield Run(a, b, sets[number] if number < DIGESTS else stand_in(number))


@dataclass(frozen=True, slots=True)
class Past:
    """What was known when an epoch ended. `elsewhere`: of another server, whose identities mean nothing here."""

    state: State
    elsewhere: bool

    def columns(self) -> tuple[Known, bytes, bytes]:
        """What was known, its marks, and its identities, of which the last may be missing."""
        state = self.state
        if state.seen is None:
            ids = b"" if self.elsewhere or not state.ids else state.ids.column(state.known)
            return state.known, state.marks.column(state.known), ids
        # What was told to be gone counts, too: shown again it is not announced again. What a print is made of is the
        # mail's own, whichever server shows it.
        seen = Known()
        for uid in state.seen:
            seen.put(uid, frozenset())
        prints = b"".join(state.seen.print(uid) or NO_MARK for uid in state.seen)
        return seen, state.marks.column(seen), prints


def recogniser_of(pasts: Sequence[Past], *, whole: bool = True) -> Recogniser:
    """By all that was known, in the last epoch and in those before that had not been gone through when they ended.

    What was below the starting line says the first of them: the line of a later one is drawn by what it recognised.
    Not `whole` where some of those before are lost.
    """
    known, column, ids = pasts[0].columns()
    near = near_ids = b""
    for past in pasts[1:]:
        _, marks, named = past.columns()
        near += marks
        near_ids += named.ljust(len(marks), b"\0")
    first = pasts[-1]
    if not first.elsewhere or first.state.seen is not None:
        near_ids += first.state.near_ids
    near += first.state.near
    names = pasts[0].state.numbers.name_of
    return Recogniser(known, column, near, first.state.floor, ids=ids, near_ids=near_ids, names=names, whole=whole)


def _packed(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return zlib.compress(numbers.tobytes(), 1)


def _unpacked(data: bytes) -> "array[int]":
    engine = zlib.decompressobj()
    raw = engine.decompress(data, RUNS_LIMIT_BYTES)
    if not engine.eof:
        raise ValueError("more runs than a mailbox has")
    numbers = array("I")
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
