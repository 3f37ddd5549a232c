"""Where a mailbox goes on, what became of a commit, which messages make a page."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.contract import ResetReason, fingerprint
from service.errors import Permanent
from service.ingest.cursor import Copy, Cursor, dump_copy, dump_cursor, load_copy, load_cursor
from service.ingest.dead import dump_places, load_places
from service.ingest.plan import (
    PAGE_LIMIT_BYTES,
    PAGE_LIMIT_MESSAGES,
    CopySeq,
    Position,
    Settled,
    StreamView,
    TailView,
    Why,
    announced,
    epoch_break,
    is_foreign,
    is_other,
    needs_lookup,
    pages,
    resume,
    settle,
)
from service.ingest.source import Epoch
from service.ingest.surveyed import Surveyed

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
STREAM = StreamView(CREATED, first_seq=100, last_seq=200)
START = Cursor("src", 7, last=10, line=10, writer="a/1")


MINE = "the commit's last event"


def at(last: int, writer: str = "a/1") -> Cursor:
    return Cursor("src", 7, last=last, line=10, writer=writer)


def again(last: int) -> Cursor:
    """What is counted from here on is no longer what was counted before."""
    return replace(at(last), rollbacks=1)


def tail(seq: int, cursor: Cursor | None, *, strangers: int = 0) -> TailView:
    """The end of a mailbox, with so many strangers' messages on top of its last event."""
    return TailView(seq + strangers, seq if cursor is not None else 0, cursor, id=MINE)


def copy_at(seq: int, last: int = 50, created: datetime = CREATED) -> Copy:
    return Copy(created, seq, at(last), START)


def message(uid: int, size: int = 1000, date: datetime | None = CREATED) -> Surveyed:
    return Surveyed(uid, size, frozenset(), date)


# -- resume -----------------------------------------------------------------------------------------------------


def test_a_mailbox_without_tail_and_copy_is_new() -> None:
    position = resume(None, None, STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.fence, position.cursor) == (Why.NEW, 0, None)


def test_the_tail_is_right_where_the_copy_is_not_newer() -> None:
    position = resume(tail(150, at(60)), copy_at(140), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.fence, position.cursor) == (Why.TAIL, 150, at(60))


@pytest.mark.fault("D06")
def test_the_copy_serves_once_retention_has_passed_its_sequence() -> None:
    position = resume(None, copy_at(99), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.fence, position.cursor) == (Why.COPY, 0, at(50))


@pytest.mark.fault("D06")
@pytest.mark.fault("D08")
def test_the_copy_serves_where_its_message_was_purged() -> None:
    position = resume(None, copy_at(150), STREAM, CopySeq.DELETED)
    assert (position.why, position.cursor) == (Why.COPY, at(50))


@pytest.mark.fault("D07")
def test_a_copy_beyond_the_stream_means_that_the_log_was_rolled_back_and_the_log_wins() -> None:
    position = resume(tail(150, at(40)), copy_at(250), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.fence, position.cursor, position.again) == (Why.ROLLED_BACK, 150, again(40), False)


@pytest.mark.fault("D07")
def test_another_subjects_message_at_the_copys_sequence_means_rolled_back() -> None:
    position = resume(tail(150, at(40)), copy_at(180), STREAM, CopySeq.FOREIGN)
    assert (position.why, position.cursor) == (Why.ROLLED_BACK, again(40))


@pytest.mark.fault("D07")
def test_rolled_back_without_a_tail_begins_again_at_the_starting_point() -> None:
    position = resume(None, copy_at(250), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.cursor, position.again) == (Why.ROLLED_BACK, replace(START, rollbacks=1), True)


@pytest.mark.fault("D08")
def test_a_copy_of_another_stream_leaves_it_to_the_initial_rule() -> None:
    position = resume(None, copy_at(150, created=CREATED - timedelta(days=1)), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.cursor) == (Why.OTHER_STREAM, None)


@pytest.mark.fault("D19")
def test_under_a_strangers_message_the_mailboxs_own_last_event_tells_where_to_go_on() -> None:
    end = tail(150, at(60), strangers=9)
    position = resume(end, copy_at(140), STREAM, CopySeq.UNKNOWN)
    assert (position.why, position.fence, position.cursor) == (Why.TAIL, 159, at(60))
    assert is_foreign(end, 140)
    assert is_foreign(end, 150)
    assert not is_foreign(tail(150, at(60)), 140)


@pytest.mark.fault("D19")
def test_a_strangers_message_alone_leaves_it_to_the_copy_or_to_the_initial_rule_and_fences_on_it() -> None:
    end = TailView(150, 0, None)
    assert resume(end, None, STREAM, CopySeq.UNKNOWN) == Position(Why.NEW, 150, None)
    assert resume(end, copy_at(99), STREAM, CopySeq.UNKNOWN) == Position(Why.COPY, 150, at(50), seq=99)
    assert resume(end, copy_at(120), STREAM, CopySeq.DELETED) == Position(Why.COPY, 150, at(50), seq=120)
    assert resume(end, copy_at(250), STREAM, CopySeq.UNKNOWN) == Position(
        Why.ROLLED_BACK, 150, replace(START, rollbacks=1), again=True
    )


@pytest.mark.fault("D19")
def test_an_end_below_the_copys_sequence_was_erased_and_is_no_strangers() -> None:
    end = tail(150, at(60), strangers=3)
    assert not is_foreign(end, 154)
    assert resume(end, copy_at(154), STREAM, CopySeq.DELETED) == Position(Why.COPY, 153, at(50), seq=154)


def test_the_copys_sequence_is_looked_up_only_where_it_decides() -> None:
    assert needs_lookup(None, copy_at(150), STREAM)
    assert not needs_lookup(tail(150, at(60)), copy_at(150), STREAM)
    assert not needs_lookup(None, copy_at(99), STREAM)
    assert not needs_lookup(None, copy_at(250), STREAM)
    assert not needs_lookup(None, None, STREAM)


# -- settle -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("D03")
def test_a_commit_whose_cursor_is_the_tail_has_landed() -> None:
    assert settle(tail(151, at(60)), 150, at(60), MINE) is Settled.LANDED


@pytest.mark.fault("D03")
def test_a_commit_is_not_there_while_the_tail_is_its_fence() -> None:
    assert settle(tail(150, at(50)), 150, at(60), MINE) is Settled.NOT_THERE
    assert settle(None, 0, at(60), MINE) is Settled.NOT_THERE


@pytest.mark.fault("D02")
def test_another_writers_commit_is_not_taken_for_ours() -> None:
    assert settle(tail(151, at(60, "b/9")), 150, at(60), MINE) is Settled.MOVED


@pytest.mark.fault("D02", "B07")
def test_a_commit_of_another_event_is_not_ours_although_both_count_on_from_one_place_alike() -> None:
    assert settle(TailView(151, 151, at(60), id="a stand-in's"), 150, at(60), MINE) is Settled.MOVED


@pytest.mark.fault("D19")
def test_a_strangers_message_hides_neither_that_a_commit_landed_nor_that_it_did_not() -> None:
    assert settle(tail(151, at(60), strangers=2), 150, at(60), MINE) is Settled.LANDED
    assert settle(tail(150, at(50), strangers=2), 150, at(60), MINE) is Settled.NOT_THERE
    assert settle(TailView(3, 0, None), 0, at(60), MINE) is Settled.NOT_THERE
    assert settle(tail(151, at(60, "b/9"), strangers=2), 150, at(60), MINE) is Settled.MOVED


def test_a_log_that_is_shorter_than_the_fence_is_read_again() -> None:
    assert settle(None, 150, at(60), MINE) is Settled.MOVED
    assert settle(tail(149, at(50)), 150, at(60), MINE) is Settled.MOVED


def test_an_older_boot_of_the_same_instance_is_no_other_writer() -> None:
    assert not is_other("a/1", "a/2")
    assert is_other("b/1", "a/2")


# -- epochs -----------------------------------------------------------------------------------------------------


def test_uidvalidity_change_starts_a_new_epoch() -> None:
    assert epoch_break(at(60), "src", Epoch(8, 61, 60), []) is ResetReason.UIDVALIDITY


@pytest.mark.fault("A06")
def test_another_source_starts_a_new_epoch_although_uidvalidity_is_the_same() -> None:
    assert epoch_break(at(60), "other", Epoch(7, 61, 60), []) is ResetReason.SOURCE


@pytest.mark.fault("A06")
def test_another_message_under_the_last_uid_starts_a_new_epoch() -> None:
    cursor = Cursor("src", 7, last=60, line=10, writer="a/1", fingerprint=fingerprint(1000, CREATED))
    assert epoch_break(cursor, "src", Epoch(7, 61, 60), [message(60)]) is None
    assert epoch_break(cursor, "src", Epoch(7, 61, 60), [message(60, size=999)]) is ResetReason.SOURCE


@pytest.mark.fault("A06")
@pytest.mark.parametrize(
    ("box", "now", "reason"), [("F1", "F1", None), ("F1", "F2", ResetReason.SOURCE), ("", "F2", None), ("F1", "", None)]
)
def test_another_mailbox_under_the_same_name_and_number_is_known_by_its_id(
    box: str, now: str, reason: ResetReason | None
) -> None:
    cursor = Cursor("src", 7, last=60, line=10, writer="a/1", box=box)
    assert epoch_break(cursor, "src", Epoch(7, 61, 60, mailbox_id=now), []) is reason


def test_a_last_message_that_was_expunged_breaks_nothing() -> None:
    cursor = Cursor("src", 7, last=60, line=10, writer="a/1", fingerprint=fingerprint(1000, CREATED))
    assert epoch_break(cursor, "src", Epoch(7, 61, 60), []) is None


def test_since_lets_through_old_mail_that_arrived_late_enough_and_all_new_mail() -> None:
    cursor = Cursor("src", 7, last=0, line=10, writer="a/1", since=CREATED)
    assert announced(message(5), cursor)
    assert not announced(message(5, date=CREATED - timedelta(seconds=1)), cursor)
    assert not announced(message(5, date=None), cursor)
    assert announced(message(11, date=CREATED - timedelta(days=9)), cursor)


# -- pages ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2 * PAGE_LIMIT_BYTES), max_size=50), st.integers(1, PAGE_LIMIT_BYTES))
def test_pages_keep_order_and_bounds_whatever_the_sizes(sizes: list[int], limit: int) -> None:
    messages = [message(uid, size) for uid, size in enumerate(sizes, start=1)]
    cut = list(pages(messages, limit, frozenset()))
    assert [m for page in cut for m in page] == messages
    for page in cut:
        assert len(page) <= PAGE_LIMIT_MESSAGES
        assert sum(m.size for m in page if m.size <= limit) <= max(PAGE_LIMIT_BYTES, limit)


def test_the_first_pages_of_many_are_smaller() -> None:
    cut = list(pages([message(uid, 1000) for uid in range(1, 1201)], PAGE_LIMIT_BYTES, frozenset()))
    assert [len(page) for page in cut] == [100, 200, 400, 400, 100]


def test_a_suspect_gets_a_page_of_its_own() -> None:
    cut = list(pages([message(uid) for uid in (1, 2, 3)], 5000, frozenset({2})))
    assert [[m.uid for m in page] for page in cut] == [[1], [2], [3]]


# -- text forms -------------------------------------------------------------------------------------------------

cursors = st.builds(
    Cursor,
    source=st.text(max_size=20),
    uidvalidity=st.integers(0, 2**32),
    last=st.integers(0, 2**32),
    line=st.integers(0, 2**32),
    writer=st.text(max_size=20),
    since=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(cursors)
def test_a_cursor_survives_its_header(cursor: Cursor) -> None:
    text = dump_cursor(cursor)
    assert load_cursor(text) == cursor
    assert "\n" not in text
    assert "\r" not in text


@pytest.mark.fault("D19")
@given(st.text(max_size=100))
def test_any_text_in_a_cursors_place_is_a_cursor_or_none_or_a_newer_versions(text: str) -> None:
    with contextlib.suppress(Permanent):
        load_cursor(text)


@pytest.mark.fault("D19")
@pytest.mark.parametrize("text", ["", "{}", "null", "[" * 50_000, '{"a":' * 50_000, '{"v":"2"}', '{"v":1}', "\ud800"])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert load_cursor(text) is None


@pytest.mark.fault("D19")
@pytest.mark.parametrize("text", [dump_cursor(Cursor("s", 1, 1, 1, "w/1", v=2)), '{"v":2}', '{"last":[],"v":9}'])
def test_a_newer_versions_cursor_is_said_to_be_one(text: str) -> None:
    with pytest.raises(Permanent, match="is of version"):
        load_cursor(text)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=400))
def test_where_dead_letters_stand_survives_its_header(places: list[int]) -> None:
    assert load_places(dump_places(places)) == tuple(places)


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "x", "1,²", "99999", "9" * 5000])
def test_what_names_no_places_names_none(text: str) -> None:
    assert load_places(text) == ()


@given(cursors, st.integers(0, 2**60))
def test_a_copy_survives_its_key(cursor: Cursor, seq: int) -> None:
    copy = Copy(CREATED, seq, cursor, cursor)
    assert load_copy(dump_copy(copy)) == copy


@given(st.binary(max_size=100))
def test_any_bytes_under_a_copys_key_are_a_copy_or_none(value: bytes) -> None:
    load_copy(value)
