"""One mailbox's known state: recalled from a snapshot and the log, moved on with each commit, saved now and then.

Lives as long as the account, over many connections. Every commit of a mailbox goes through here: what an event says in
its `Mail-State` header is what is known, whether it was committed here or is read back from the log.
"""

import asyncio
import dataclasses
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from service.bus import BlobStore, EventLog, OutMessage
from service.clock import Clock
from service.contract import NUMBERS_FROM, STATE_HEADER, EventType
from service.errors import Permanent, Transient
from service.ingest.cursor import Before, Cursor, Named, copy_key
from service.ingest.kinship import ALONE, Kinship
from service.ingest.known import Known
from service.ingest.marks import Marks, Recogniser, packed_id, packed_mark
from service.ingest.notes import load_line, load_note
from service.ingest.numbers import Numbers
from service.ingest.plan import Recalled
from service.ingest.publish import MailboxLog
from service.ingest.replay import told
from service.ingest.seen import Seen
from service.ingest.state import Past, State, dump_state, load_state, recogniser_of
from service.observe import log, step
from service.tasks import finished

# A commit that is under way when its task is cancelled.
FINISH_S: Final = 10.0
# What a start reads again, by its headers alone: 20 µs an event.
IDLE_EVENTS_LIMIT: Final = 1_000
# While a mailbox is being read for the first time, snapshots are rarer, and rarer still the more they hold: all that a
# million messages write is ten times the last one.
BUSY_EVENTS_LIMIT: Final = 10_000
SHARE: Final = 8
# Runs, and marks since the snapshot, that a mailbox at rest may keep: with 1,000 of them 5 MB at the most.
REST_LIMIT: Final = 256


class Memory:
    """What consumers know of a mailbox."""

    def __init__(
        self,
        events: MailboxLog,
        replay: EventLog,
        store: BlobStore,
        *,
        account: str,
        mailbox: str,
        filter_subject: str,
        clock: Clock,
        kinship: Kinship = ALONE,
    ) -> None:
        self._events = events
        self._replay = replay
        self._store = store
        self._where = f"{account}, {mailbox}"
        self._account, self._key = account, copy_key(account, mailbox)
        self._filter, self._clock, self._kinship = filter_subject, clock, kinship
        self._state = State()
        self._owner = ""  # of which epoch the state is; empty: it is nobody's
        self._rollbacks = self._uidvalidity = 0
        self._seq, self._last_id = 0, ""  # where in the log it stands, and the event that is there
        self._named = Named(0)
        self._partial = self._settled = False  # `settled`: whether the state is whole at this moment
        self._seen: Seen | None = None  # what the next epoch of a maildrop begins with
        self._useless = ""  # a snapshot that is gone, or that the log does not go on from
        self._passed: list[str] = []  # objects that go once a commit has named what is newer, unless others need them
        self.heard = NUMBERS_FROM  # the highest number that was heard of, in whatever epoch

    @property
    def known(self) -> Known:
        """UID → keywords of what was announced and is there."""
        return self._state.known

    @property
    def seen(self) -> Seen | None:
        """Of a maildrop: identity → UID of all that was looked at."""
        return self._state.seen

    @property
    def numbers(self) -> Numbers:
        """Those that mail was announced under while POP3 stood in."""
        return self._state.numbers

    def uid_of(self, uidvalidity: int, number: int) -> int | None:
        """The UID of a message that was announced under a number: 0 where it is gone, None where the epoch is another.

        Raises Transient while nobody knows.
        """
        if self._settled and self._uidvalidity != uidvalidity:
            return None
        if not self._settled or number in self.numbers.waiting:
            raise Transient("IMAP has not shown yet what POP3 announced", where=self._where, remedy="ask again later")
        return self.numbers.uid_of(number)

    def name_of(self, uidvalidity: int, uid: int) -> int:
        """What the id of a message is made of: its UID, or the number that it was announced under."""
        return self.numbers.name_of(uid) if self._uidvalidity == uidvalidity else uid

    @property
    def partial(self) -> bool:
        """Whether something of what was known is lost."""
        return self._partial

    def identities(self, uidvalidity: int, uids: Collection[int]) -> dict[int, bytes] | None:
        """Of a maildrop: what messages are known by; None in another epoch. Raises Transient until that is recalled."""
        if not self._settled:
            raise Transient("what is known of the maildrop is not recalled yet", where=self._where)
        seen = self.seen
        if self._uidvalidity != uidvalidity or seen is None:
            return None
        return {uid: identity for uid in uids if (identity := seen.identity(uid))}

    @property
    def floor(self) -> datetime | None:
        """What arrived earlier was old when the epoch began; None where everything was announced."""
        return self._state.floor

    @property
    def seq(self) -> int:
        """Where in the log it stands."""
        return self._seq

    # -- recalling --------------------------------------------------------------------------------------------

    async def recall(self, cursor: Cursor, seq: int, older: str = "") -> Recalled:
        """Make the known state that of `cursor`, which stands at `seq` in the log. Raises Transient.

        `older`: a snapshot that the log still names although there is a newer one.
        """
        self._settled = False
        recalled = await self._recall(cursor, seq, older)
        self._settled = True
        return recalled

    async def _recall(self, cursor: Cursor, seq: int, older: str) -> Recalled:
        if older and older not in self._passed:
            self._passed.append(older)
        owner = self._owner_of(cursor)
        if self._owner == owner and self._rollbacks == cursor.rollbacks:
            if (self._seq, self._state.events) == (seq, cursor.events):
                self._name(cursor.state)
                return Recalled.PARTIAL if self._partial else Recalled.WHOLE
            if self._seq < seq and await self._replayed(seq, self._last_id) and self._state.events == cursor.events:
                self._name(cursor.state)
                return Recalled.WHOLE
        if cursor.state is None:
            self._begin(owner, cursor, State(events=cursor.events), Named(seq, cursor.events), seq)
            return Recalled.UNKNOWN
        state: State | None = State(events=cursor.state.events)
        if cursor.state.id:
            state = await self._load(cursor.state.id, owner)
            if state is not None:
                state.marks, state.ids = Marks(), Marks()
        if state is not None:
            self._begin(owner, cursor, state, cursor.state, cursor.state.seq)
            if await self._replayed(seq, "") and self._state.events == cursor.events:
                return Recalled.WHOLE
        # The log itself may still have all that the epoch had.
        self._useless = cursor.state.id
        self._begin(owner, cursor, State(), Named(0), 0)
        if await self._replayed(seq, "") and self._state.events == cursor.events:
            return Recalled.WHOLE
        log.warning("known_state_incomplete", where=self._where, events=cursor.events, found=self._state.events)
        self._state.events, self._seq, self._partial = cursor.events, seq, True
        return Recalled.PARTIAL

    def _begin(self, owner: str, cursor: Cursor, state: State, named: Named, seq: int) -> None:
        self._owner, self._rollbacks, self._uidvalidity = owner, cursor.rollbacks, cursor.uidvalidity
        self._state, self._named, self._seq, self._last_id, self._partial = state, named, seq, "", False
        self.heard = max(self.heard, state.numbers.top)
        if named.id in self._passed:
            self._passed.remove(named.id)

    def _name(self, named: Named | None) -> None:
        """Go on from the snapshot that the log names: whoever wrote this mailbox meanwhile deleted the older one.

        Ours is newer where it was saved and no commit has named it yet, or where the log's could not be gone on from.
        """
        if named is not None and named.seq >= self._named.seq and named.id != self._useless:
            self._named = named
            if named.id in self._passed:
                self._passed.remove(named.id)

    async def _load(self, id: str, owner: str) -> State | None:
        try:
            data = await self._store.get(id)
        except Permanent as exc:
            log.warning("known_state_missing", where=self._where, error=str(exc))
            return None
        return await asyncio.to_thread(load_state, data, owner)

    async def _replayed(self, seq: int, first_id: str) -> bool:
        """Apply the log up to `seq`; False where the event that we stood at is another."""
        after = self._seq - 1 if first_id else self._seq
        expected = first_id
        erased = await self._events.erased() if seq > after else []
        async with aclosing(told(self._replay, erased, self._filter, after=after, last=seq)) as events:
            async for one in events:
                if expected:
                    # Up to this one it is all known.
                    if (one.id, one.seq) != (expected, self._seq):
                        return False
                    expected = ""
                    continue
                # A stranger's message says nothing; that none of ours did is what the count of events is for.
                if self._apply(one.kind, one.state):
                    self._seq, self._last_id = one.seq, one.id
        self._seq = seq
        return not expected

    def _apply(self, kind: str, text: str) -> bool:
        if kind == EventType.RESET:
            line = load_line(text)
            if line is None:
                return False
            near = b"".join(packed_mark(mark) for mark in line.marks)
            ids = b"".join(packed_id(mark) for mark in line.marks)
            # A maildrop's epoch begins with what was seen, which its snapshot has already.
            seen = self._state.seen if self._state.events == 0 else None
            self._state = State(near=near, floor=line.floor, events=1, near_ids=ids if any(ids) else b"", seen=seen)
            return True
        note = load_note(text)
        if note is None:
            return False
        state = self._state
        state.events += 1
        match kind:
            case EventType.RECEIVED if note.uid >= NUMBERS_FROM:
                state.numbers.give(note.uid, note.mark.partition(":")[0])
                self.heard = max(self.heard, note.uid)
            case EventType.RECEIVED:
                state.known.put(note.uid, note.keywords)
                state.mark(note.uid, note.mark)
            case EventType.CHANGED:
                state.known.put(note.uid, note.keywords)
                if note.number:
                    state.numbers.pair(note.number, note.uid)
                    state.mark(note.uid, note.mark)
            case EventType.REMOVED:
                state.numbers.drop(note.uid)
                if note.uid < NUMBERS_FROM:
                    state.known.discard(note.uid)
            case _:
                return False
        return True

    def adopt(self, uid: int, mark: str, keywords: frozenset[str]) -> None:
        """A message that is there and must have been announced, although nothing tells of it any more."""
        self._state.known.put(uid, keywords)
        self._state.mark(uid, mark)

    def rest(self) -> None:
        """Keep no more of it than a few kilobytes: whoever goes on recalls it, as after a start."""
        state = self._state
        # Where POP3 stood in, ids are looked up here.
        if state.known.size + state.marks.fresh + state.ids.fresh > REST_LIMIT and not state.numbers:
            self._owner, self._state = "", State()

    # -- committing -------------------------------------------------------------------------------------------

    async def commit(self, events: Sequence[OutMessage], cursor: Cursor, *, dead: Sequence[int] = ()) -> Cursor:
        """Put events and cursor into the log; gives the cursor as it was written. Raises as MailboxLog.commit does."""
        written = replace(cursor, events=cursor.events + len(events), state=self._named)
        passed, self._passed = [id for id in self._passed if id not in written.needed], []
        try:
            await finished(self._events.commit(events, written, dead=dead), FINISH_S)
        except BaseException:
            self._passed += passed
            raise
        self._moved(events)
        # An object that stays is some bytes lost; nothing refers to it.
        for id in passed:
            with suppress(Transient):
                if not await self._kinship.settled(id):
                    await self._store.delete(id)
        return written

    async def begin(self, event: OutMessage, cursor: Cursor) -> Cursor:
        """The commit that begins an epoch: nothing is known of it."""
        if self._named.id:
            self._passed.append(self._named.id)
        # What an epoch recognises by stays until it is through with it, whoever said before that it may go.
        self._passed = [id for id in self._passed if id not in cursor.needed]
        owner, seen, named = self._owner_of(cursor), self._seen, Named(self._events.fence)
        if seen is not None:
            # It does not fit a header: it is there before the commit that names it.
            data = await asyncio.to_thread(dump_state, State(seen=seen), owner)
            step("state.before")
            named = replace(named, id=await self._store.put(data, now=self._clock.now()))
            step("state.done")
        written = replace(cursor, events=1, state=named)
        self._events.new_epoch(written)
        # Whatever becomes of it: the old state is of no use any more, or is recalled.
        self._owner, self._settled = "", False
        await finished(self._events.commit([event], written), FINISH_S)
        self._begin(owner, written, State(seen=seen), named, self._events.at)
        self._moved([event])
        self._seen, self._settled = None, True
        return written

    async def start_of(self, cursor: Cursor) -> Seen | None:
        """What a maildrop's epoch began with; None where that is gone. Raises Transient."""
        if cursor.state is None or not cursor.state.id:
            return None
        state = await self._load(cursor.state.id, self._owner_of(cursor))
        return state.seen if state is not None else None

    def begin_with(self, seen: Seen) -> None:
        """What the next epoch of a maildrop begins with."""
        self._seen = seen

    def keep(self, seen: Seen) -> None:
        """Of a maildrop: what is left of it."""
        self._state.seen = seen

    def _moved(self, events: Sequence[OutMessage]) -> None:
        for event in events:
            if not self._apply(event.subject.rpartition(".")[2], event.headers.get(STATE_HEADER, "")):
                raise RuntimeError(f"an event without a {STATE_HEADER}: {event.subject}")
        self._seq, self._last_id = self._events.at, events[-1].headers["ce-id"]

    def _owner_of(self, cursor: Cursor) -> str:
        return f"{self._key} {cursor.place} {cursor.uidvalidity}"

    # -- saving -----------------------------------------------------------------------------------------------

    def due(self, *, idle: bool) -> bool:
        """Whether so much has happened since the last snapshot that a start should not have to read it."""
        limit = IDLE_EVENTS_LIMIT if idle else BUSY_EVENTS_LIMIT
        renamed = idle and self.seen is not None and self.seen.renamed
        return renamed or self._state.events - self._named.events > max(limit, len(self.known) // SHARE)

    async def save(self, cursor: Cursor) -> Cursor:
        """Write a snapshot; the copy names it from now on, and every commit. Raises Transient."""
        state, owner = self._state, self._owner_of(cursor)
        base = (await self._load(self._named.id, owner) if self._named.id else None) or State()
        marks, ids = state.marks, state.ids

        def dump() -> bytes:
            whole = dataclasses.replace(state, marks=marks.over(base.marks), ids=ids.over(base.ids))
            return dump_state(whole, owner)

        data = await asyncio.to_thread(dump)
        step("state.before")
        id = await self._store.put(data, now=self._clock.now())
        step("state.done")
        # What a maildrop's epoch began with stays: a log that was rolled back to nothing goes on from there.
        if self._named.id not in {"", id} and self._named.events:
            self._passed.append(self._named.id)
        self._named = Named(self._seq, state.events, id)
        state.saved()
        self._partial = False
        named = replace(cursor, state=self._named)
        self._events.note(self._seq, named)
        with suppress(Transient):
            await self._store.sweep(now=self._clock.now())  # what was left by who was killed while saving
        log.debug("known_state_saved", where=self._where, messages=len(state.known), bytes=len(data))
        return named

    def near_its_end(self, first_seq: int, last_seq: int) -> bool:
        """Whether what happened since the snapshot will soon be beyond what the log keeps."""
        return self._state.events > self._named.events and 2 * (self._named.seq - first_seq) < last_seq - first_seq

    # -- the epoch before -------------------------------------------------------------------------------------

    async def recogniser(self, before: Before) -> Recogniser | None:
        """The marks of the epochs before, as far back as there is a snapshot; None without any. Raises Transient."""
        states, chain = list[Past](), before.chain()
        for one in chain:
            key = copy_key(self._account, one.mailbox) if one.mailbox else self._key
            if (state := await self._load(one.id, f"{key} ")) is None:
                break
            states.append(Past(state, one.elsewhere))
        return await asyncio.to_thread(recogniser_of, states, whole=len(states) == len(chain)) if states else None

    async def recollect(self) -> Recogniser:
        """By all that is known now. Raises Transient."""
        base = (await self._load(self._named.id, self._owner) if self._named.id else None) or State()
        whole = dataclasses.replace(self._state, marks=self._state.marks.over(base.marks))
        return await asyncio.to_thread(recogniser_of, [Past(whole, elsewhere=True)])

    def passed_by(self, id: str) -> None:
        """An object that no commit from now on names; unless the known state goes on from it."""
        if id != self._named.id and id not in self._passed:
            self._passed.append(id)
