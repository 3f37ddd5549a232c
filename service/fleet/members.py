"""What is heard of the fleet's keys → who counts, and when accounts may be taken. Pure: time is handed in.

Every replica hears the same changes in the same order, each at its own time. An account moves without a gap in care:
who loses it releases it, and says so by `settled`, the sequence up to which it has done what the changes asked of it;
who gains it waits until all others have settled the change that moved it, or are gone. Used by steer.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from service.fleet.assign import Replica

# A replica that restarts in between moves nothing, and several that start together move accounts once.
QUIET_S: Final = 2.0
# Replicas that come and go all the time must not keep the others from counting.
QUIET_LIMIT_S: Final = 10.0
# No name came then.
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as its key says. `since`: the sequence at which its name came, with this capacity."""

    instance: str
    boot: str
    capacity: float
    since: int
    settled: int
    accounts: str = ""


class Standing(StrEnum):
    """What a replica may do."""

    # Nobody else is there: all accounts are its own.
    ALONE = "alone"
    # Nobody else was there, and others may be by now: it keeps what it has, and takes nothing.
    CUT_OFF = "cut_off"
    # It has its share.
    SHARING = "sharing"
    # Its key may be gone, or does not count yet: no account is its own.
    OUT = "out"


class Membership:
    """What the replica `me` has heard. `counted` is who counts; what was heard since counts after some quiet."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._members: dict[str, Member] = {}
        self.changed_seq = 0
        self._first_s: float | None = None
        self._last_s = 0.0
        self.seen = 0
        self.counted: tuple[Member, ...] = ()
        # The change up to which `counted` holds.
        self.revision = 0
        # Which bucket the sequences are of: what was settled in another is nothing.
        self.epoch = 0

    def begin_anew(self) -> None:
        """The bucket was made anew, and its sequences with it: nothing was heard yet, and this replica is out."""
        self.epoch += 1
        self._members, self._first_s = {}, None
        self.seen = self.changed_seq = self.revision = 0
        self.counted = tuple(replace(one, since=NEVER) for one in self.counted)

    def heard(self, seq: int, instance: str, member: Member | None, *, now: float) -> None:
        """A key was written, or is gone (None), at this sequence; `now` in seconds."""
        self.seen = max(self.seen, seq)
        before = self._members.get(instance)
        if member is None:
            self._members.pop(instance, None)
        else:
            self._members[instance] = member
        if _who(before) != _who(member):
            self.changed_seq = max(self.changed_seq, seq)
            self._last_s = now
            if self._first_s is None:
                self._first_s = now

    def heard_all(self, members: Iterable[Member], *, seq: int, now: float) -> None:
        """All keys as they are at this sequence: who is not among them is gone."""
        there = {member.instance: member for member in members}
        for instance in [*(self._members.keys() - there.keys()), *there]:
            self.heard(seq, instance, there.get(instance), now=now)
        self.seen = max(self.seen, seq)

    def quiet_s(self, now: float) -> float | None:
        """Seconds until what was heard counts; None where all that was heard does."""
        if self._first_s is None:
            return None
        return max(0.0, min(self._last_s + QUIET_S, self._first_s + QUIET_LIMIT_S) - now)

    def count(self) -> None:
        """From now on, who is there counts."""
        self.counted = tuple(self._members[instance] for instance in sorted(self._members))
        self.revision = self.changed_seq
        self._first_s = None

    def standing(self, *, since: int, leased: bool) -> Standing:
        """What this replica may do, whose key came at `since`; `leased`: it surely is there still."""
        if not any(instance != self._me for instance in (*self._members, *(one.instance for one in self.counted))):
            # Who has heard of its own key has heard of all that were there before; who comes later waits for it.
            me = self._members.get(self._me)
            return Standing.ALONE if leased and me is not None and me.since == since else Standing.CUT_OFF
        counts = any(one.instance == self._me and one.since == since for one in self.counted)
        return Standing.SHARING if leased and counts else Standing.OUT

    def may_take(self, standing: Standing) -> bool:
        """Whether accounts may be begun: all who could have them yet have let go."""
        if standing is Standing.ALONE:
            return True
        # Another may have settled a later change than the one that counts here, and have kept what it had.
        if standing is not Standing.SHARING or self._first_s is not None:
            return False
        others = (one for name, one in self._members.items() if name != self._me)
        return all(one.settled >= self.revision for one in others)

    def settled(self, standing: Standing) -> int | None:
        """What is settled once all is released that is not this replica's own; None: no more than before."""
        unsettled = standing is Standing.SHARING and self._first_s is not None
        return None if unsettled or standing is Standing.CUT_OFF else self.seen

    def replicas(self) -> tuple[Replica, ...]:
        """Those among whom accounts are divided."""
        return tuple(Replica(one.instance, one.capacity) for one in self.counted)

    def member(self, instance: str) -> Member | None:
        """A replica that is there, as was heard last."""
        return self._members.get(instance)

    def alike(self) -> bool:
        """Whether all who are there were given the same accounts."""
        return len({one.accounts for one in self._members.values()}) <= 1


def _who(member: Member | None) -> tuple[str, float, int] | None:
    """What makes a difference to who has what. Another process of the same name makes none."""
    return None if member is None else (member.instance, member.capacity, member.since)
