"""A maildrop's listing and what was seen before → the UID of each message. Pure.

Used by from_pop3.py. UIDs are handed out in the order of first sight, and kept by whoever commits what they name
(seen.py): one that no commit has told yet is remembered here.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import pairwise
from typing import Final

from service.ingest.contents import Shown
from service.ingest.known import Known
from service.ingest.seen import Seen
from service.pop3 import NO_IDENTITY, Listing

# Two milliseconds or three.
AT_ONCE: Final = 500
# Messages that left the maildrop and may be shown again (Gmail's `recent:`): so many stay known.
GONE_LIMIT: Final = 10_000
# UIDs of one generation: what a log forgot when it was rolled back was given numbers that are not given again.
GENERATION_BITS: Final = 24
# Sizes that are remembered, of the mails that were announced last.
SIZES_LIMIT: Final = 20_000
# Of mail that was recognised after all ids changed, which may change one by one before a start: 15 MB.
PRINTS_LIMIT: Final = 100_000
# In the place of a size: another message has the id by now, whether that was committed or not.
PASSED_ON: Final = -1


@dataclass(slots=True)
class Lasting:
    """What outlives the connections to a maildrop.

    `broke`: how often they broke where a message was looked at, by identity; `shown`: what looks have shown, as long as
    it is asked for. Of the epoch `uidvalidity`: `deleted`, UIDs that were deleted from here, which nobody shall miss;
    `given`, those that no commit has told yet; `sizes` of what was read to be announced, as they were listed; `proved`,
    of what was doubtful and is the same; `prints` of what the epoch before may have told; `there`, at the last look
    that found anything, None before; `next`, the UID to come.
    """

    deleted: set[int] = field(default_factory=set)
    uidvalidity: int = 0
    given: dict[bytes, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    proved: set[int] = field(default_factory=set)
    broke: Counter[bytes] = field(default_factory=Counter)
    shown: Shown = field(default_factory=dict)
    prints: dict[int, bytes] = field(default_factory=dict)
    there: "array[int] | None" = None
    next: int = 1

    def begin(self, uidvalidity: int) -> None:
        """Nothing of another epoch counts, nor of one that begins once more."""
        self.uidvalidity, self.next, self.there = uidvalidity, 1, None
        self.deleted.clear()
        self.given.clear()
        self.sizes.clear()
        self.proved.clear()
        self.prints.clear()

    def go_on(self, uidvalidity: int, seen: Seen, last: int) -> None:
        """UIDs up to `last` are others', or were passed: they are not given any more."""
        if uidvalidity != self.uidvalidity:
            self.begin(uidvalidity)
        for identity in [identity for identity, uid in self.given.items() if uid <= last or seen.get(identity)]:
            self.sizes.pop(self.given.pop(identity), None)
        self.next = max(self.next, last + 1)

    def read(self, uid: int, size: int) -> None:
        """A message was read."""
        self.sizes[uid] = size
        if len(self.sizes) > SIZES_LIMIT:
            del self.sizes[next(iter(self.sizes))]

    def recognise(self, uid: int, print: str) -> None:
        """A message was looked at to be recognised.

        Not noted in what was seen: what has a print there was announced in this epoch, and is looked at where it is not
        known any more.
        """
        self.prints[uid] = bytes.fromhex(print)
        if len(self.prints) > PRINTS_LIMIT:
            del self.prints[next(iter(self.prints))]


class Drop:
    """One maildrop, over one connection. `lasting`: what is known of it over all of them."""

    def __init__(self, lasting: Lasting) -> None:
        self.listing = Listing()
        # What the epoch knows that is about to begin; None once it has begun.
        self.begun: Seen | None = None
        self._lasting = lasting
        self._uids = array("I")  # by index in the listing; 0: not to be had
        self._order: list[int] = []  # indices by UID
        self._sorted = array("I")  # their UIDs
        self.doubtful: list[int] = []  # indices of what may be another message than the one that had its id
        self._kept = 0  # of the listing, so many are the last one's; 0 where anything went

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def next(self) -> int:
        """The UID of what comes next."""
        return self._lasting.next

    def renew(self, uidvalidity: int) -> None:
        """Nothing of what was seen counts any more."""
        self._lasting.begin(uidvalidity)
        self.begun = Seen()
        self.listing, self._uids = Listing(), array("I")

    # -- a new listing ----------------------------------------------------------------------------------------

    def lookup(self, listing: Listing, seen: Seen, known: Known, fresh: list[int]) -> Iterator[None]:
        """UIDs of what was seen; indices of what was not go to `fresh`. Pauses now and then.

        Nothing goes away unless the listing begins otherwise than the last one: only what came behind is looked up.
        What was deleted here, or told to be gone, is `doubtful`; so is what has another size by now. The size tells of
        what was gone and has no print.
        """
        given, sizes, proved = self._lasting.given, self._lasting.sizes, self._lasting.proved
        for at, (identity, uid) in enumerate(list(given.items())):
            if at % AT_ONCE == 0:
                yield
            if seen.get(identity) >= uid:
                del given[identity]
        self.doubtful = []
        same = len(self.listing) if listing.starts_as(self.listing) else 0
        self._kept = same
        uids = self._uids[:same]
        for at in range(same, len(listing)):
            identity = listing.identity(at)
            uid = given.get(identity, 0)
            if not uid:
                uid = seen.get(identity)
                size = listing.sizes[at]
                if uid and self._is_doubted(uid, size, known):
                    if sizes.get(uid) != PASSED_ON and seen.print(uid):
                        self.doubtful.append(at)
                    elif self._is_another(uid, size, known):
                        sizes[uid], uid = PASSED_ON, 0
            uids.append(uid)
            if not uid and identity != NO_IDENTITY:
                fresh.append(at)
            if at % AT_ONCE == 0:
                yield
        self.listing, self._uids = listing, uids
        yield
        if given or proved:
            # What was passed without a word and shows again is new.
            there = set[int]()
            yield from self._gather(there)
            proved &= there
            for at, (identity, uid) in enumerate(list(given.items())):
                if at % AT_ONCE == 0:
                    yield
                if uid not in there:
                    del given[identity]

    def settle(self, at: int, *, is_same: bool) -> None:
        """Whether the doubtful message at an index is the one that had its id; another is seen for the first time."""
        uid = self._uids[at]
        if is_same:
            self._lasting.proved.add(uid)
            if uid in self._lasting.sizes:
                self._lasting.sizes[uid] = self.listing.sizes[at]
        else:
            self._lasting.sizes[uid], self._uids[at] = PASSED_ON, 0

    def rename(self, at: int, uid: int) -> None:
        """The message at an index was seen under another id."""
        self._uids[at] = uid

    def print(self, uid: int, seen: Seen) -> bytes:
        """Of a message that was seen; empty where none is known."""
        return seen.print(uid) or self._lasting.prints.get(uid, b"")

    def vanished(self, known: Known, found: list[int]) -> Iterator[None]:
        """UIDs of what was announced, is not told to be gone and is not there go to `found`. Pauses now and then."""
        there, deleted, count = set[int](), self._lasting.deleted, 0
        yield from self._gather(there)
        for run in known.runs():
            for uid in range(run.first, run.last + 1):
                count += 1
                if count % AT_ONCE == 0:
                    yield
                if uid not in there and uid not in deleted:
                    found.append(uid)

    def _gather(self, found: set[int]) -> Iterator[None]:
        """UIDs of what is there go to `found`. Pauses now and then."""
        for start in range(0, len(self._uids), AT_ONCE):
            found.update(self._uids[start : start + AT_ONCE])
            yield

    def passed(self, seen: Seen, known: Known, found: list[int]) -> Iterator[None]:
        """UIDs of what was there at the last look, was never announced and is not there go to `found`.

        Not of what no commit has told yet, nor of what the log forgot: that is announced.
        """
        there, deleted = set[int](), self._lasting.deleted
        yield from self._gather(there)
        for at, uid in enumerate(self._lasting.there or ()):
            if at % AT_ONCE == 0:
                yield
            if uid not in there and uid not in deleted and known.get(uid) is None and seen.identity(uid):
                found.append(uid)

    def _is_doubted(self, uid: int, size: int, known: Known) -> bool:
        if self._lasting.sizes.get(uid, size) != size:
            return True
        return uid not in self._lasting.proved and self._is_gone(uid, known)

    def has_other_size(self, at: int, known: Known) -> bool:
        """Whether the doubtful message at an index was gone and has another size by now: what to go by without TOP."""
        return self._is_another(self._uids[at], self.listing.sizes[at], known)

    def _is_another(self, uid: int, size: int, known: Known) -> bool:
        before = self._lasting.sizes.get(uid, size)
        return before == PASSED_ON or (before != size and self._is_gone(uid, known))

    def _is_gone(self, uid: int, known: Known) -> bool:
        """Whether a message was told to be gone, or was deleted from here."""
        return known.get(uid) is None or uid in self._lasting.deleted

    def is_doubtful(self, seen: Seen) -> bool:
        """Whether nothing that was there is there any more, although nobody here deleted it all."""
        if any(self._uids):
            return False
        there = self._lasting.there
        return len(seen) > 0 if there is None else any(uid not in self._lasting.deleted for uid in there)

    def number(self, fresh: Sequence[int]) -> Iterator[None]:
        """UIDs for what was never seen, in the order of the listing. Pauses now and then."""
        if self._kept == len(self.listing) == len(self._sorted):
            return
        for count, at in enumerate(fresh):
            if count % AT_ONCE == 0:
                yield
            identity = self.listing.identity(at)
            self._uids[at] = self.next
            if self.begun is not None:
                self.begun.put(identity, self.next)
            else:
                self._lasting.given[identity] = self.next
            self._lasting.next += 1
        yield
        if not self._are_behind():
            # Not sorted at once: that would hold up everybody else, in whatever thread it is done.
            order, uids, runs = list[int](), array("I"), list[list[int]]()
            for start in range(0, len(self._uids), AT_ONCE):
                places = range(start, min(len(self._uids), start + AT_ONCE))
                # A number for both: of 200,000 pairs the collector would make a pause.
                runs.append(sorted(self._uids[at] << 32 | at for at in places if self._uids[at]))
                yield
            for both in merge(*runs):
                order.append(both & 0xFFFFFFFF)
                uids.append(both >> 32)
                if len(order) % AT_ONCE == 0:
                    yield
            self._order, self._sorted = order, uids
        if len(self.listing):
            self._lasting.there = self._sorted
            deleted = self._lasting.deleted
            deleted.intersection_update([uid for uid in deleted if self.places(uid, uid)])

    def _are_behind(self) -> bool:
        """Whether all that came is in order behind what was there, which is as it was; then it is put there."""
        came = range(self._kept, len(self._uids)) if self._kept else ()
        order = [at for at in came if self._uids[at]]
        uids = array("I", [self._uids[at] for at in order])
        last = self._sorted[-1] if self._sorted else 0
        if not self._kept or any(later <= uid for uid, later in pairwise([last, *uids])):
            return False
        self._order += order
        self._sorted += uids
        return True

    def outdated(self, seen: Seen, known: Known, found: set[int]) -> Iterator[None]:
        """UIDs of what left the maildrop long ago go to `found`, once it is much. Pauses now and then.

        So what is kept is bounded by what is there.
        """
        if self.begun is not None or len(seen) <= 2 * len(self._uids) + GONE_LIMIT:
            return
        there, gone = set[int](), list[int]()
        yield from self._gather(there)
        for at, uid in enumerate(seen):
            if at % AT_ONCE == 0:
                yield
            if uid not in there and known.get(uid) is None:
                gone.append(uid)
        found.update(gone[: -GONE_LIMIT // 2])

    # -- what there is ----------------------------------------------------------------------------------------

    def places(self, first: int, last: int | None) -> Sequence[int]:
        """Indices of the messages with UIDs first to last (None: to the end), by UID."""
        start = bisect_left(self._sorted, first)
        end = len(self._sorted) if last is None else bisect_right(self._sorted, last)
        return self._order[start:end]

    def uid(self, at: int) -> int:
        """Of the message at an index."""
        return self._uids[at]

    def highest(self) -> int:
        """The highest UID; 0 without one."""
        return self._sorted[-1] if self._sorted else 0
