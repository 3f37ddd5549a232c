"""A maildrop's listing and what was seen before → the UID of each message. Pure.

Used by from_pop3.py. UIDs are handed out in the order of first sight, and kept by whoever commits what they name
(seen.py): one that no commit has told yet is remembered here.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from service.ingest.known import Known
from service.ingest.seen import Seen
from service.pop3 import NO_IDENTITY, Listing

AT_ONCE: Final = 2_000
# Messages that left the maildrop and may be shown again (Gmail's `recent:`): so many stay known.
GONE_LIMIT: Final = 10_000
# UIDs of one generation: what a log forgot when it was rolled back was given numbers that are not given again.
GENERATION_BITS: Final = 24


class Drop:
    """One maildrop in one epoch. `deleted`: UIDs that were deleted from here, which nobody shall miss."""

    def __init__(self, deleted: set[int]) -> None:
        self.listing = Listing()
        self.next = 1
        # What the epoch knows that is about to begin; None once it has begun.
        self.begun: Seen | None = None
        self._deleted = deleted
        self._uids = array("I")  # by index in the listing; 0: not to be had
        self._order: list[int] = []  # indices by UID
        self._sorted = array("I")  # their UIDs
        self._given: dict[bytes, int] = {}  # UIDs that no commit has told yet
        self._kept = 0  # of the listing, so many are the last one's; 0 where anything went
        self._there: array[int] | None = None  # UIDs at the last look that found anything

    def __len__(self) -> int:
        return len(self.listing)

    def renew(self) -> None:
        """Nothing of what was seen counts any more."""
        self.begun, self._given, self.next, self._there = Seen(), {}, 1, None
        self.listing, self._uids = Listing(), array("I")

    # -- a new listing ----------------------------------------------------------------------------------------

    def lookup(self, listing: Listing, seen: Seen, fresh: list[int]) -> Iterator[None]:
        """UIDs of what was seen; indices of what was not go to `fresh`. Pauses now and then.

        Nothing goes away unless the listing begins otherwise than the last one: only what came behind is looked up.
        """
        self._given = {identity: uid for identity, uid in self._given.items() if not seen.get(identity)}
        same = len(self.listing) if listing.starts_as(self.listing) else 0
        self._kept = same
        uids = self._uids[:same]
        for at in range(same, len(listing)):
            identity = listing.identity(at)
            uid = seen.get(identity) or self._given.get(identity, 0)
            uids.append(uid)
            if not uid and identity != NO_IDENTITY:
                fresh.append(at)
            if at % AT_ONCE == 0:
                yield
        self.listing, self._uids = listing, uids

    def is_doubtful(self, seen: Seen) -> bool:
        """Whether nothing that was there is there any more, although nobody here deleted it all."""
        if any(self._uids):
            return False
        return len(seen) > 0 if self._there is None else any(uid not in self._deleted for uid in self._there)

    def number(self, fresh: Sequence[int]) -> Iterator[None]:
        """UIDs for what was never seen, in the order of the listing. Pauses now and then."""
        if self._kept == len(self.listing) == len(self._sorted):
            return
        if self.begun is not None:
            self.begun.reserve(len(fresh))
        for count, at in enumerate(fresh):
            if count % AT_ONCE == 0:
                yield
            identity = self.listing.identity(at)
            self._uids[at] = self.next
            if self.begun is not None:
                self.begun.put(identity, self.next)
            else:
                self._given[identity] = self.next
            self.next += 1
        yield
        if not self._are_behind():
            there = [at for at in range(len(self._uids)) if self._uids[at]]
            yield
            self._order = sorted(there, key=self._uids.__getitem__)
            self._sorted = array("I", [self._uids[at] for at in self._order])
        if len(self.listing):
            self._there = self._sorted
            self._deleted.intersection_update([uid for uid in self._deleted if self.places(uid, uid)])

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

    def outdated(self, seen: Seen, known: Known) -> set[int]:
        """UIDs of what left the maildrop long ago, once it is much: what is kept is bounded by what is there."""
        if self.begun is not None or len(seen) <= 2 * len(self._uids) + GONE_LIMIT:
            return set()
        there = set(self._uids)
        gone = [uid for uid in seen if uid not in there and known.get(uid) is None]
        return set(gone[: -GONE_LIMIT // 2])

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
