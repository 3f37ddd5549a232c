"""What is known of a mailbox: runs against a plain dictionary, snapshots there and back, marks, differences."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.contract import Keywords, fingerprint, keywords_of
from service.ingest.cursor import BEYOND_LIMIT, Cursor, Named, before_of, dump_cursor, load_cursor
from service.ingest.known import Change, Flagged, Known, Run, differences, missing, runs_of, without
from service.ingest.marks import MARK_BYTES, NO_MARK, Marks, Recogniser, packed_id, packed_mark, whole_mark
from service.ingest.notes import Line, Note, dump_line, dump_note, load_line, load_note
from service.ingest.sets import ROOM_BYTES, SET_BYTES, WORD_BYTES
from service.ingest.state import Past, State, dump_state, load_state, recogniser_of

NONE: Keywords = frozenset()
SEEN = frozenset({"$seen"})
FLAGGED = frozenset({"$flagged", "work"})

uids = st.one_of(st.integers(1, 40), st.integers(2**32 - 5, 2**32 - 1))
keywords = st.sampled_from([NONE, SEEN, FLAGGED])
edits = st.lists(st.tuples(uids, st.one_of(st.none(), keywords)), max_size=120)


def filled(pairs: list[tuple[int, Keywords | None]]) -> tuple[Known, dict[int, Keywords]]:
    known, model = Known(), dict[int, Keywords]()
    for uid, words in pairs:
        if words is None:
            known.discard(uid)
            model.pop(uid, None)
        else:
            known.put(uid, words)
            model[uid] = words
    return known, model


def flat(known: Known) -> dict[int, Keywords]:
    return {uid: run.keywords for run in known.runs() for uid in range(run.first, run.last + 1)}


@given(edits)
def test_runs_hold_what_a_dictionary_holds(pairs: list[tuple[int, Keywords | None]]) -> None:
    known, model = filled(pairs)
    assert flat(known) == model
    assert len(known) == len(model)
    assert all(known.get(uid) == model.get(uid) for uid in [*range(1, 45), 2**32 - 1])
    runs = list(known.runs())
    assert all(a.last + 1 < b.first or a.keywords != b.keywords for a, b in pairwise(runs))


@given(edits, uids, uids)
def test_a_part_of_the_runs_is_cut_at_both_ends(pairs: list[tuple[int, Keywords | None]], a: int, b: int) -> None:
    known, model = filled(pairs)
    first, last = min(a, b), max(a, b)
    found = {uid for run in known.runs(first, last) for uid in range(run.first, run.last + 1)}
    assert found == {uid for uid in model if first <= uid <= last}


@given(edits, st.integers(1, 7))
def test_windows_hold_no_more_than_they_may_and_leave_nothing_out(
    pairs: list[tuple[int, Keywords | None]], limit: int
) -> None:
    known, model = filled(pairs)
    first, seen = 1, 0
    while first < 2**32:
        last = known.window_end(first, 2**32 - 1, limit)
        inside = [uid for uid in model if first <= uid <= last]
        assert len(inside) <= limit
        seen += len(inside)
        assert last >= first
        first = last + 1
    assert seen == len(model)


def test_a_million_messages_are_a_few_bytes() -> None:
    known = Known([Run(1, 1_000_000, SEEN)])
    for uid in range(1000, 1010):
        known.put(uid, FLAGGED)
    state = State(known)
    assert len(list(known.runs())) == 3
    assert len(dump_state(state, "x")) < 1000 + MARK_BYTES * 1_000_000


def test_sets_that_nothing_has_any_more_are_forgotten() -> None:
    known = Known([Run(1, 3, NONE)])
    for n in range(5000):
        known.put(2, frozenset({f"k{n}"}))
    assert len(known._sets) < 200
    assert known.get(2) == {"k4999"}
    assert known.get(3) == NONE


@pytest.mark.parametrize("words", [1, 120])
def test_keywords_of_a_mails_own_take_no_more_room_than_a_mailbox_has_for_them(words: int) -> None:
    def of(uid: int, more: str = "") -> Keywords:
        return frozenset(f"{uid}-{word}{more}" for word in range(words))

    known = Known()
    for uid in range(1, 5001):
        known.put(uid, of(uid))
    assert len(known._sets) * (SET_BYTES + WORD_BYTES * words) < ROOM_BYTES
    again = load_state(dump_state(State(known), "box"), "box")
    assert again is not None
    for one in (known, again.known):
        assert len(one._sets) < 900
        there = [Flagged(uid, of(uid), 0) for uid in range(1, 5001)]
        assert differences(one, there, []) == []
        there[1], there[4500] = Flagged(2, of(2, "x"), 0), Flagged(4501, of(4501, "x"), 0)
        assert differences(one, there, []) == [Change(2, of(2, "x")), Change(4501, of(4501, "x"))]
    # Of the same keywords, one after the other, there is one run, also where these have no room.
    for uid in range(4000, 5001):
        known.put(uid, of(9999))
    assert known.size == 4000
    # What is put back as it was given is what it was.
    before = known.get(3000)
    assert before is not None
    known.put(3000, before)
    assert differences(known, [Flagged(3000, of(3000), 0)], []) == []


def test_keywords_that_are_usual_again_have_room_again() -> None:
    known = Known()
    for uid in range(1, 2001):
        known.put(uid, frozenset({f"own{uid}"}))
    for _ in range(3):
        for uid in range(1, 2001):
            known.put(uid, SEEN if uid % 2 else FLAGGED)
    known.put(2001, frozenset({"new"}))
    assert [known.get(uid) for uid in (1, 2, 2001)] == [SEEN, FLAGGED, {"new"}]


# -- snapshots ----------------------------------------------------------------------------------------------------


def mark_of(uid: int) -> bytes:
    return uid.to_bytes(MARK_BYTES, "big")


@given(edits, edits)
def test_a_snapshot_gives_back_what_was_known(
    before: list[tuple[int, Keywords | None]], after: list[tuple[int, Keywords | None]]
) -> None:
    known, model = filled(before)
    marks = Marks()
    for uid in sorted(model):
        marks.put(uid, mark_of(uid))
    floor = datetime(2026, 1, 1, tzinfo=UTC)
    first = load_state(dump_state(State(known, marks, mark_of(7), floor, 5), "box"), "box")
    assert first is not None
    assert (flat(first.known), first.near, first.floor, first.events) == (model, mark_of(7), floor, 5)
    # Then some come and go, and the next one is made from the first one's column and what came since.
    fresh = Marks()
    for uid, words in after:
        if words is None:
            first.known.discard(uid)
        else:
            if first.known.get(uid) is None:
                fresh.put(uid, mark_of(uid))
            first.known.put(uid, words)
    expected = flat(first.known)
    second = load_state(dump_state(State(first.known, fresh.over(first.marks)), "box"), "box")
    assert second is not None
    assert flat(second.known) == expected
    assert second.marks.column(second.known) == b"".join(mark_of(uid) for uid in sorted(expected))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_snapshot_or_none(data: bytes) -> None:
    load_state(data, "box")
    load_state(b"\x01" + data, "box")


def test_a_damaged_snapshot_or_another_mailboxes_is_none() -> None:
    whole = dump_state(State(Known([Run(1, 9, SEEN)])), "box")
    assert load_state(whole, "box") is not None
    assert load_state(whole, "other") is None
    assert load_state(b"\x02" + whole[1:], "box") is None
    for cut in range(len(whole)):
        assert load_state(whole[:cut], "box") is None


# -- differences --------------------------------------------------------------------------------------------------


def test_what_is_said_again_or_of_others_is_no_difference() -> None:
    known = Known([Run(1, 5, NONE), Run(7, 9, SEEN)])
    there = [Flagged(2, SEEN, 10), Flagged(3, NONE, 11), Flagged(6, SEEN, 12), Flagged(8, NONE, 13)]
    assert differences(known, there, [range(5, 8), range(100, 2**32)]) == [
        Change(2, SEEN, 10),
        Change(5, None),
        Change(7, None),
        Change(8, NONE, 13),
    ]


def test_what_a_server_calls_gone_and_shows_is_there() -> None:
    assert differences(Known([Run(1, 3, NONE)]), [Flagged(2, SEEN, 4)], [range(1, 3)]) == [
        Change(1, None),
        Change(2, SEEN, 4),
    ]


@given(edits, st.sets(uids))
def test_missing_is_what_is_known_and_not_there(pairs: list[tuple[int, Keywords | None]], present: set[int]) -> None:
    known, model = filled(pairs)
    gone = missing(known, 1, 2**32 - 1, runs_of(present))
    assert [uid for run in gone for uid in run] == sorted(set(model) - present)


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)))
def test_runs_without_others_are_what_sets_say(uids: set[int], others: set[int]) -> None:
    left = without(runs_of(uids), runs_of(others))
    assert [uid for run in left for uid in run] == sorted(uids - others)


class Counted(Sequence[range]):
    """A million runs, and how often one was looked at."""

    def __init__(self, first: int) -> None:
        self.first, self.looks = first, 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        start = self.first + 2 * (at % len(self))
        return range(start, start + 1)


@pytest.mark.fault("A13")
def test_of_a_million_runs_those_are_looked_at_that_lie_near_what_is_known() -> None:
    known, others = Known([Run(uid, uid, NONE) for uid in range(1_000_000, 1_003_000, 3)]), Counted(1)
    # Odd numbers are there.
    assert len(missing(known, 1, 2**32 - 1, others)) == 500
    assert others.looks < 40 * len(known)
    others.looks = 0
    assert len(differences(known, [], others)) == 500
    assert others.looks < 40 * len(known)


@given(edits, st.sets(uids))
def test_what_is_gone_and_was_known_is_told(pairs: list[tuple[int, Keywords | None]], gone: set[int]) -> None:
    known, model = filled(pairs)
    assert differences(known, [], runs_of(gone)) == [Change(uid, None) for uid in sorted(gone & model.keys())]


@given(edits, edits)
def test_differences_applied_make_one_the_other(
    mine: list[tuple[int, Keywords | None]], theirs: list[tuple[int, Keywords | None]]
) -> None:
    known, model = filled(mine)
    _, server = filled(theirs)
    there = [Flagged(uid, words, 1) for uid, words in server.items()]
    gone = missing(known, 1, 2**32 - 1, runs_of(server))
    for change in differences(known, there, gone):
        if change.keywords is None:
            known.discard(change.uid)
        else:
            known.put(change.uid, change.keywords)
    assert flat(known) == {uid: words for uid, words in server.items() if uid in model}


# -- notes, marks -------------------------------------------------------------------------------------------------


@given(uids, st.sampled_from(["", "830cd0d55557"]), keywords)
def test_a_note_survives_its_header(uid: int, mark: str, words: Keywords) -> None:
    assert load_note(dump_note(uid, mark, words)) == Note(uid, mark, words)


@given(st.text())
def test_any_text_is_a_note_or_none(text: str) -> None:
    load_note(text)
    load_line(text)


def test_a_line_survives_its_header() -> None:
    for line in (Line(None, ()), Line(datetime(2026, 1, 2, tzinfo=UTC), ("830cd0d55557", "830cd0d55558"))):
        assert load_line(dump_line(line)) == line


def test_flags_are_keywords_and_deleted_is_none() -> None:
    assert keywords_of(frozenset({"\\Seen", "\\Deleted", "\\Recent", "$Forwarded", "Work"})) == {
        "$seen",
        "$forwarded",
        "work",
    }


def test_what_no_keyword_can_be_is_left_out_and_many_are_bounded() -> None:
    assert keywords_of(frozenset({"a b", "x" * 256, "ok", 'q"', "a(b"})) == {"ok"}
    many = keywords_of(frozenset(f"keyword-{n:06}" for n in range(5000)))
    assert 0 < len(dump_note(1, "", many)) < 9000
    assert "keyword-000000" in many


def test_equal_marks_are_recognised_as_often_as_there_were_messages() -> None:
    mark, other = "830cd0d55557", "830cd0d55558"
    one, two = packed_mark(mark), packed_mark(other)
    found = Recogniser(Known([Run(3, 4, NONE), Run(9, 9, SEEN)]), one + one + two, two)
    assert [found.take(mark) for _ in range(3)] == [3, 4, None]
    assert [found.take(other) for _ in range(3)] == [9, 0, None]
    assert found.take("") is None


def test_where_both_have_an_identity_it_alone_counts() -> None:
    same = fingerprint(100, None)
    ids = [packed_id(whole_mark(same, name)) for name in ("a", "b")]
    # UIDs 3 and 4 have the same size and date; 9 has no identity, as from a server that had none yet.
    known, column = Known([Run(3, 4, NONE), Run(9, 9, NONE)]), packed_mark(same) * 3
    found = Recogniser(known, column, b"", ids=b"".join([*ids, NO_MARK]))
    assert found.has(whole_mark(same, "b"))
    assert found.take(whole_mark(same, "b")) == 4
    assert [found.take(whole_mark(same, "new")) for _ in range(2)] == [9, None]
    assert [found.take(whole_mark(fingerprint(5, None), "a")) for _ in range(2)] == [3, None]


def test_a_server_without_identities_is_recognised_by_what_both_have() -> None:
    marks = [whole_mark(fingerprint(size, None), f"id{size}") for size in (1, 2)]
    known, column = Known([Run(3, 4, NONE)]), b"".join(map(packed_mark, marks))
    ids = b"".join(map(packed_id, marks))
    assert Recogniser(known, column, b"", ids=ids).take(fingerprint(2, None)) == 4
    assert Recogniser(known, column, b"").take(whole_mark(fingerprint(2, None), "another")) == 4


def test_many_equal_marks_are_found_without_looking_through_them_again() -> None:
    count = 20_000
    mark = whole_mark(fingerprint(1, None), "")
    found = Recogniser(Known([Run(1, count, NONE)]), packed_mark(mark) * count, b"")
    assert [found.take(mark) for _ in range(count)] == list(range(1, count + 1))


@pytest.mark.parametrize("text", ["", "zz", "830cd0d555", "830cd0d5555700"])
def test_what_is_no_mark_recognises_nothing(text: str) -> None:
    assert packed_mark(text) == NO_MARK


def past(known: dict[int, str], *, near: str = "", floor: datetime | None = None, elsewhere: bool = False) -> Past:
    state = State(near=packed_mark(near) if near else b"", floor=floor)
    for uid, mark in known.items():
        state.known.put(uid, NONE)
        state.mark(uid, mark)
    return Past(state, elsewhere)


def test_what_an_epoch_had_not_gone_through_is_known_by_the_one_before_and_so_is_the_line() -> None:
    old, new, below = (fingerprint(size, None) for size in (1, 2, 3))
    floor = datetime(2026, 1, 1, tzinfo=UTC)
    later = past({1: new}, near=old, floor=datetime(2026, 6, 1, tzinfo=UTC))
    found = recogniser_of([later, past({7: old}, near=below, floor=floor)])
    assert found.floor == floor
    assert (found.take(new), found.take(new)) == (1, None)
    # Under what number the epoch before knew it says nothing: nobody was told of it since.
    assert (found.take(old), found.take(old)) == (0, None)
    assert (found.take(below), found.take(fingerprint(4, None))) == (0, None)


def test_what_epochs_recognise_by_is_handed_on_as_far_as_something_is_known() -> None:
    first = Cursor("a", 5, 9, 0, "one/1", events=4, state=Named(9, 4, "first"), turn=1)
    second = replace(first, uidvalidity=6, before=before_of(first), events=1, state=Named(10, 1, "second"))
    # Nothing was announced in it.
    third = replace(second, uidvalidity=7, before=before_of(second), events=3, state=Named(12, 3, "third"))
    assert third.needed == ["first"]
    last = before_of(third, mailbox="Old", elsewhere=True)
    assert [(one.id, one.mailbox, one.elsewhere, one.uidvalidity) for one in last.chain()] == [
        ("third", "Old", True, 7),
        ("first", "Old", True, 5),
    ]
    again = replace(third, before=before_of(first, mailbox="Elsewhere"))
    assert [one.mailbox for one in before_of(again, mailbox="Old").chain()] == ["Old", "Elsewhere"]
    cursor = third
    for number in range(3 * BEYOND_LIMIT):
        cursor = replace(cursor, before=before_of(cursor), state=Named(12, 3, f"s{number}"))
        assert len(cursor.needed) <= BEYOND_LIMIT + 1
    assert load_cursor(dump_cursor(cursor)) == cursor
