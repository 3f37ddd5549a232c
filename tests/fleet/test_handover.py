"""Accounts that move between replicas, in every order that changes may be heard in: never two owners, one at rest.

The fleet's bucket is a list of changes; each replica hears them in their order, as late as it likes, and decides by
the code that decides in the service. What the list holds, who runs what, and who is cut off is the model's.
"""

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.fleet import owner
from service.fleet.members import QUIET_LIMIT_S, QUIET_S, Member, Membership, Standing

NAMES = ("one", "two", "three", "four")
# More find more: MAILBUS_TEST_HANDOVERS=5000 takes a few minutes.
EXAMPLES = int(os.environ.get("MAILBUS_TEST_HANDOVERS", "80"))
ACCOUNTS = tuple(f"account-{number}" for number in range(12))


@dataclass
class Process:
    """A replica: what it has heard of the bucket, what its key says, and what runs in it."""

    name: str
    boot: str
    members: Membership
    since: int = 0
    settled: int = 0
    heard_upto: int = 0
    # Its bucket, and the last sequence that it knows of there.
    bucket: int = 0
    last: int = 0
    leased: bool = True
    alive: bool = True
    running: set[str] = field(default_factory=set)
    # Still ending, after the decision to release them, and what is settled then.
    ending: set[str] = field(default_factory=set)
    settles: int | None = None

    @property
    def has(self) -> set[str]:
        return self.running | self.ending


class Fleet(RuleBasedStateMachine):
    """`log`: sequence by sequence, whose key became what."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, Member | None]] = []
        self.keys: dict[str, Member] = {}
        self.processes: list[Process] = []
        self.boots = 0
        self.bucket = 0

    # -- the bucket --------------------------------------------------------------------------------------------

    def write(self, name: str, member: Member | None) -> int:
        seq = len(self.log) + 1
        if member is not None:
            member = Member(name, member.boot, member.capacity, member.since or seq, member.settled)
            self.keys[name] = member
        else:
            self.keys.pop(name, None)
        self.log.append((name, member))
        return seq

    def say(self, process: Process) -> None:
        """Renew the key, where it is there; take it anew where it is gone."""
        there = self.keys.get(process.name)
        since = process.since if there is not None else 0
        if there is None:
            process.settled = 0
        seq = self.write(process.name, Member(process.name, process.boot, 1.0, since, process.settled))
        process.since = since or seq
        process.leased = True
        if seq <= process.last:
            process.members.begin_anew()
            process.settled, process.settles, process.last, process.bucket = 0, None, 0, self.bucket - 1
        process.last = max(process.last, seq)

    def hear_all(self, process: Process) -> None:
        """A watch that begins: all keys as they are."""
        process.members.heard_all(self.keys.values(), seq=len(self.log), now=0.0)
        process.heard_upto, process.bucket = len(self.log), self.bucket
        process.last = max(process.last, len(self.log))

    def hear_some(self, process: Process, many: int) -> None:
        if process.bucket != self.bucket:
            self.hear_all(process)
        for seq, (name, member) in list(enumerate(self.log, start=1))[process.heard_upto : process.heard_upto + many]:
            process.members.heard(seq, name, member, now=0.0)
            process.heard_upto, process.last = seq, max(process.last, seq)

    def living(self, name: str) -> Process | None:
        return next((one for one in self.processes if one.alive and one.name == name), None)

    # -- what happens ------------------------------------------------------------------------------------------

    @initialize(count=st.integers(1, 3))
    def some_start(self, count: int) -> None:
        for name in NAMES[:count]:
            self.start(name)

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        if self.living(name):
            return
        self.boots += 1
        process = Process(name, f"b{self.boots}", Membership(name))
        there = self.keys.get(name)
        # Who comes in a dead process's place while its key is there takes over what that one had.
        process.since = there.since if there else 0
        seq = self.write(name, Member(name, process.boot, 1.0, process.since, 0))
        process.since = process.since or seq
        self.hear_all(process)
        process.members.count()
        self.processes.append(process)

    @rule(data=st.data(), many=st.integers(1, 5))
    def hear(self, data: st.DataObject, many: int) -> None:
        if (process := self.one(data)) is not None:
            self.hear_some(process, many)

    @rule(data=st.data())
    def begin_the_watch_anew(self, data: st.DataObject) -> None:
        if (process := self.one(data)) is not None:
            self.hear_all(process)

    @rule(data=st.data(), quiet=st.booleans())
    def steer(self, data: st.DataObject, quiet: bool) -> None:
        if (process := self.one(data)) is not None and not process.ending:
            self.decide(process, quiet=quiet)

    def decide(self, process: Process, *, quiet: bool = True) -> None:
        """As service/fleet/steer.py does, up to where it waits for accounts to end."""
        members = process.members
        if quiet and members.quiet_s(QUIET_LIMIT_S) == 0:
            members.count()
        standing = members.standing(since=process.since, leased=process.leased)
        process.settles = members.settled(standing)
        process.ending = process.running - self.share(process, standing)
        process.running -= process.ending
        if not process.ending:
            self.let_go(process)

    def share(self, process: Process, standing: Standing) -> set[str]:
        if standing is Standing.ALONE:
            return set(ACCOUNTS)
        if standing is Standing.CUT_OFF:
            return set(process.running)
        if standing is Standing.OUT:
            return set()
        return {one for one in ACCOUNTS if owner(one, process.members.replicas()) == process.name}

    def let_go(self, process: Process) -> None:
        """As it goes on once they have ended: says what is settled, and takes what it may."""
        process.ending = set()
        if process.settles is not None and process.settles > process.settled:
            process.settled = process.settles
            self.say(process)
        standing = process.members.standing(since=process.since, leased=process.leased)
        if process.members.may_take(standing):
            process.running |= self.share(process, standing)

    @rule(data=st.data())
    def accounts_ended(self, data: st.DataObject) -> None:
        if (process := self.one(data)) is not None and process.ending:
            self.let_go(process)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if (process := self.one(data)) is not None and process.leased:
            self.say(process)

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """kill -9: the key stays until it expires."""
        if (process := self.one(data)) is not None:
            process.alive = False

    @rule(name=st.sampled_from(NAMES))
    def expire(self, name: str) -> None:
        if name in self.keys and self.living(name) is None:
            self.write(name, None)

    @rule(data=st.data())
    def cut_off_for_long(self, data: st.DataObject) -> None:
        """Its lease ends, it lets go, its key expires; it does not hear of it yet."""
        process = self.one(data)
        if process is None or process.name not in self.keys:
            return
        process.leased = False
        if process.members.standing(since=process.since, leased=False) is Standing.ALONE:
            return  # a lone replica keeps its accounts, and its fence
        process.running, process.ending = set(), set()
        self.write(process.name, None)

    @rule()
    def the_bucket_is_lost_and_made_anew(self) -> None:
        """All leases end, and all let go; sequences begin with 1 again."""
        for process in self.processes:
            process.leased, process.running, process.ending = False, set(), set()
        self.log, self.keys = [], {}
        self.bucket += 1

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        if (process := self.one(data)) is not None and not process.leased:
            self.say(process)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """SIGTERM: all have ended before the key is given back."""
        if (process := self.one(data)) is not None:
            process.alive = False
            process.running, process.ending = set(), set()
            if process.name in self.keys:
                self.write(process.name, None)

    def one(self, data: st.DataObject) -> Process | None:
        living = [process for process in self.processes if process.alive]
        return data.draw(st.sampled_from(living)) if living else None

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def nobody_shares_an_account(self) -> None:
        living = [process for process in self.processes if process.alive]
        for index, process in enumerate(living):
            for other in living[index + 1 :]:
                both = process.has & other.has
                assert not both, f"{process.name} and {other.name} both have {sorted(both)}"

    @precondition(lambda self: any(process.alive for process in self.processes))
    @rule()
    def come_to_rest(self) -> None:
        """Whatever happened: once all have heard all and nothing more happens, each account has one owner."""
        for name in list(self.keys):
            if self.living(name) is None:
                self.write(name, None)
        living = [process for process in self.processes if process.alive]
        for _ in range(8):
            for process in living:
                if not process.leased or process.name not in self.keys:
                    self.say(process)
                self.hear_some(process, len(self.log))
                if process.ending:
                    self.let_go(process)
                self.decide(process)
                if process.ending:
                    self.let_go(process)
                self.nobody_shares_an_account()
        owned = [account for process in living for account in process.running]
        assert sorted(owned) == sorted(ACCOUNTS)


FleetTest = pytest.mark.fault("F02")(Fleet.TestCase)
FleetTest.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)


# -- single rules, by name ---------------------------------------------------------------------------------------------


def member(name: str, *, since: int, settled: int = 0, capacity: float = 1.0, boot: str = "b") -> Member:
    return Member(name, boot, capacity, since, settled)


def test_changes_count_after_some_quiet_and_after_a_while_at_the_latest() -> None:
    members = Membership("one")
    members.heard(1, "one", member("one", since=1), now=0.0)
    assert members.quiet_s(0.5) == QUIET_S - 0.5
    members.heard(2, "two", member("two", since=2), now=1.0)
    assert members.quiet_s(1.0) == QUIET_S
    for second in range(2, 10):
        members.heard(second * 2, "two", None, now=second)
        members.heard(second * 2 + 1, "two", member("two", since=second * 2 + 1), now=second)
    assert members.quiet_s(9.0) == QUIET_LIMIT_S - 9.0
    members.count()
    assert members.quiet_s(9.0) is None


def test_a_renewal_is_no_change_and_neither_is_a_process_in_anothers_place() -> None:
    members = Membership("one")
    members.heard(1, "two", member("two", since=1), now=0.0)
    members.count()
    members.heard(5, "two", member("two", since=1, settled=3), now=1.0)
    members.heard(6, "two", member("two", since=1, boot="another"), now=2.0)
    assert members.quiet_s(2.0) is None
    members.heard(7, "two", member("two", since=1, capacity=2.0), now=3.0)
    assert members.quiet_s(3.0) == QUIET_S


def test_a_lone_replica_keeps_all_without_a_lease_and_one_of_two_has_none() -> None:
    members = Membership("one")
    members.heard(1, "one", member("one", since=1), now=0.0)
    members.count()
    assert members.standing(since=1, leased=True) is Standing.ALONE
    assert members.standing(since=1, leased=False) is Standing.CUT_OFF
    members.heard(2, "two", member("two", since=2), now=0.0)
    assert members.standing(since=1, leased=True) is Standing.SHARING
    assert members.standing(since=1, leased=False) is Standing.OUT


def test_accounts_are_taken_once_all_others_have_settled_the_change() -> None:
    members = Membership("two")
    members.heard(3, "one", member("one", since=1), now=0.0)
    members.heard(4, "two", member("two", since=4), now=0.0)
    members.count()
    assert not members.may_take(Standing.SHARING)
    members.heard(5, "one", member("one", since=1, settled=4), now=0.1)
    assert members.may_take(Standing.SHARING)
    members.heard(6, "one", None, now=0.2)
    assert not members.may_take(Standing.SHARING)  # first it counts
    members.count()
    assert members.may_take(members.standing(since=4, leased=True))


def test_nothing_is_settled_while_a_change_does_not_count_yet() -> None:
    members = Membership("one")
    members.heard(1, "one", member("one", since=1), now=0.0)
    members.heard(2, "two", member("two", since=2), now=0.0)
    assert members.settled(Standing.SHARING) is None
    members.count()
    assert members.settled(Standing.SHARING) == 2
    members.heard(9, "two", member("two", since=2), now=1.0)
    assert members.settled(Standing.SHARING) == 9
    members.heard(10, "two", None, now=2.0)
    assert members.settled(Standing.SHARING) is None
    # Who has nothing has let go of everything.
    assert members.settled(Standing.OUT) == 10


def test_who_was_gone_has_nothing_until_it_counts_again() -> None:
    members = Membership("one")
    members.heard(1, "one", member("one", since=1), now=0.0)
    members.heard(2, "two", member("two", since=2), now=0.0)
    members.count()
    assert members.standing(since=1, leased=True) is Standing.SHARING
    # Its key expired and was taken anew at 7: what it knows is from before.
    assert members.standing(since=7, leased=True) is Standing.OUT
    members.heard(5, "one", None, now=1.0)
    members.heard(7, "one", member("one", since=7), now=1.0)
    assert members.standing(since=7, leased=True) is Standing.OUT
    members.count()
    assert members.standing(since=7, leased=True) is Standing.SHARING


def test_a_lone_replica_that_was_gone_takes_nothing_before_it_has_heard_all() -> None:
    members = Membership("one")
    members.heard(1, "one", member("one", since=1), now=0.0)
    members.count()
    assert members.standing(since=9, leased=True) is Standing.CUT_OFF
    assert not members.may_take(Standing.CUT_OFF)
    members.heard(9, "one", member("one", since=9), now=1.0)
    assert members.standing(since=9, leased=True) is Standing.ALONE


def test_in_a_bucket_that_was_made_anew_nothing_was_settled_and_nobody_counts_yet() -> None:
    members = Membership("one")
    members.heard(500, "one", member("one", since=500), now=0.0)
    members.heard(501, "two", member("two", since=501, settled=501), now=0.0)
    members.count()
    assert members.may_take(members.standing(since=500, leased=True))
    members.begin_anew()
    assert members.standing(since=1, leased=True) is Standing.OUT
    members.heard_all([member("one", since=1), member("two", since=2)], seq=2, now=1.0)
    assert members.standing(since=1, leased=True) is Standing.OUT
    assert members.settled(Standing.OUT) == 2
    members.count()
    assert members.standing(since=1, leased=True) is Standing.SHARING
    assert not members.may_take(Standing.SHARING)
    members.heard(3, "two", member("two", since=2, settled=2), now=1.0)
    assert members.may_take(Standing.SHARING)


def test_who_is_alone_keeps_what_it_has_in_a_bucket_that_was_made_anew() -> None:
    members = Membership("one")
    members.heard(500, "one", member("one", since=500), now=0.0)
    members.count()
    members.begin_anew()
    assert members.standing(since=1, leased=True) is Standing.CUT_OFF
    members.heard_all([member("one", since=1)], seq=1, now=1.0)
    assert members.standing(since=1, leased=True) is Standing.ALONE
