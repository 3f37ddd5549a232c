"""A maildrop of any size is numbered a piece at a time: others have their turn in between."""

from collections.abc import Iterator

import pytest

from service.ingest.drop import AT_ONCE, Drop, Lasting
from service.ingest.known import Known
from service.ingest.seen import NO_PRINT, Seen
from service.pop3 import Listing

MANY = 20 * AT_ONCE


def listing(ids: list[int], size: int = 100) -> Listing:
    made = Listing()
    made.take_sizes([(number, size) for number in range(1, len(ids) + 1)])
    made.take_uidls([(number, b"%d" % one) for number, one in enumerate(ids, 1)])
    for _ in made.close(len(ids), has_uidls=True):
        pass
    return made


def pauses(pieces: Iterator[None]) -> int:
    return sum(1 for _ in pieces)


@pytest.mark.fault("B05")
def test_a_maildrop_is_looked_up_and_numbered_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drop, known, fresh, found = Drop(Lasting()), Known(), list[int](), list[int]()
    drop.renew(1)
    ids = list(range(MANY))
    assert drop.begun is not None
    assert pauses(drop.lookup(listing(ids), drop.begun, known, fresh)) >= MANY // AT_ONCE
    puts, most = 0, 0
    original = Seen.put

    def counted(self: Seen, identity: bytes, uid: int) -> None:
        nonlocal puts
        puts += 1
        original(self, identity, uid)

    monkeypatch.setattr(Seen, "put", counted)
    for _ in drop.number(fresh):
        most, puts = max(most, puts), 0
    assert most <= AT_ONCE
    seen, drop.begun = drop.begun, None
    for uid in range(1, MANY + 1):
        known.put(uid, frozenset())
    # In another order, and one less.
    fresh = []
    assert pauses(drop.lookup(listing(ids[:0:-1]), seen, known, fresh)) >= MANY // AT_ONCE
    assert pauses(drop.vanished(known, found)) >= MANY // AT_ONCE
    assert pauses(drop.number(fresh)) >= MANY // AT_ONCE
    assert found == [1]
    assert [drop.uid(at) for at in drop.places(1, 3)] == [2, 3]


@pytest.mark.fault("B03", "B08")
@pytest.mark.parametrize("has_print", [True, False])
def test_of_what_was_gone_the_size_tells_where_there_is_no_print(*, has_print: bool) -> None:
    lasting, seen, known, fresh = Lasting(), Seen(), Known(), list[int]()
    drop, there = Drop(lasting), listing([1], size=101)
    seen.put(there.identity(0), 1, b"prints" if has_print else NO_PRINT)
    lasting.go_on(1, seen, 1)
    lasting.read(1, 100)
    pauses(drop.lookup(there, seen, known, fresh))
    assert (drop.doubtful, fresh) == (([0], []) if has_print else ([], [0]))
    # Where nothing can be seen of it the size tells, too.
    assert not has_print or drop.has_other_size(0, known)


def test_what_was_deleted_in_another_epoch_is_missed_in_this_one() -> None:
    lasting = Lasting()
    lasting.begin(1)
    lasting.deleted.add(1)
    lasting.begin(2)
    assert not lasting.deleted
