"""All that was seen of a maildrop, at any size: found by what it is called now, and never at once."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest import seen as room
from service.ingest.seen import AT_ONCE, Seen


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


STEPS = st.lists(st.tuples(st.sampled_from(["put", "again", "rename"]), st.integers(0, 400)), max_size=400)


@given(STEPS)
@pytest.mark.fault("B05")
def test_each_message_is_found_by_what_it_is_called_now(steps: list[tuple[str, int]]) -> None:
    there, by_identity, names = Seen(), dict[bytes, int](), dict[int, bytes]()
    for at, (what, number) in enumerate(steps, 1):
        fresh = identity(1_000 + at)
        if what == "rename" and names:
            uid = sorted(names)[number % len(names)]
            if by_identity.get(names[uid]) == uid:
                del by_identity[names[uid]]
            there.rename(uid, fresh)
            names[uid], by_identity[fresh] = fresh, uid
        else:
            key = names[sorted(names)[number % len(names)]] if what == "again" and names else fresh
            there.put(key, at, number.to_bytes(6, "big"))
            names[at], by_identity[key] = key, at
    for known in (there, Seen(there.identities, there.uids, there.prints)):
        assert {key: known.get(key) for key in by_identity} == by_identity
        assert {uid: known.identity(uid) for uid in names} == names
        assert known.get(identity(1)) == 0


@pytest.mark.fault("B05")
def test_the_table_grows_in_steps_of_a_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, most = 0, 0
    original = Seen._slot

    def counted(self: Seen, slots: "array[int]", key: bytes) -> int:
        nonlocal looked
        looked += 1
        return original(self, slots, key)

    monkeypatch.setattr(Seen, "_slot", counted)
    there = Seen()
    for number in range(1, 20_000):
        looked = 0
        there.put(identity(number), number)
        most = max(most, looked)
    assert most <= 1 + room._MOVES
    assert there.get(identity(1)) == 1
    assert there.get(identity(19_999)) == 19_999


@pytest.mark.fault("B05")
def test_what_is_left_out_is_left_out_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    there, kept = Seen(), Seen()
    for number in range(1, 10 * AT_ONCE + 1):
        there.put(identity(number), number, b"prints")
    before, most = 0, 0
    for _ in there.without(range(1, 3), kept):
        most, before = max(most, len(kept) - before), len(kept)
    assert most <= AT_ONCE
    assert len(kept) == len(there) - 2
    assert kept.get(identity(3)) == 3
    assert kept.print(3) == b"prints"
    assert kept.get(identity(2)) == 0
    assert not kept.renamed


@pytest.mark.fault("B03", "B05")
def test_what_is_called_otherwise_is_to_be_kept_whatever_is_left_out() -> None:
    there, kept = Seen(), Seen()
    for number in (1, 2):
        there.put(identity(number), number)
    there.rename(2, identity(3))
    list(there.without({1}, kept))
    assert kept.renamed


@pytest.mark.fault("B03", "B05")
@pytest.mark.parametrize(("messages", "renames"), [(80, 79), (1, 1_000), (300, 5_000)])
def test_a_table_has_free_slots_however_often_messages_are_called_otherwise(messages: int, renames: int) -> None:
    # Without one, to look for what was never seen would not end.
    there, most = Seen(), 0
    for uid in range(1, messages + 1):
        there.put(identity(uid), uid)
    for count in range(renames):
        uid = count % messages + 1
        there.rename(uid, identity(10_000 + count))
        assert 4 * there._slots.count(room._FREE) >= len(there._slots)
        most = max(most, len(there._slots))
    assert there.get(identity(9_999)) == 0
    assert there.get(identity(10_000 + renames - 1)) == (renames - 1) % messages + 1
    # Of what is there: identities that are no more take no room for good.
    assert most <= max(64, 6 * messages)
