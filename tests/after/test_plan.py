"""What is decided of a record, without a server."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.after.plan import (
    AtRecord,
    Copying,
    Item,
    Left,
    Record,
    RefusedPace,
    dump_record,
    item_of,
    load_record,
    next_left,
    of_epoch,
    started,
    waits_s,
)
from service.contract import AFTER_HEADER, NUMBERS_FROM, After, AfterKind, email_id

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
WHOLE = Record(NOW, 7, "id", "seen", [Left(1, 2, 3, NOW)], Copying([1, 2], 3, 4, 5), "one/1", 5)


def test_a_record_is_read_as_it_was_written() -> None:
    assert load_record(dump_record(WHOLE)) == WHOLE


@given(st.binary())
def test_what_is_no_record_is_none(data: bytes) -> None:
    assert load_record(data) is None


@pytest.mark.parametrize(
    ("at", "created", "last_seq", "mark", "expected"),
    [
        (AtRecord.OURS, NOW, 9, "seen", WHOLE),
        (AtRecord.GONE, NOW, 9, "seen", WHOLE),  # retention
        (AtRecord.OTHER, NOW, 9, "seen", Record(NOW, 0, mark="seen")),  # rolled back, and grown again
        (AtRecord.GONE, NOW, 6, "seen", Record(NOW, 0, mark="seen")),  # rolled back
        (AtRecord.OURS, LATER, 9, "seen", Record(LATER, 0, mark="seen")),  # another stream
        (AtRecord.OURS, NOW, 9, "delete", Record(NOW, 7, "id", "delete", writer="one/1", reset=5)),  # another rule
    ],
)
def test_where_it_goes_on(at: AtRecord, created: datetime, last_seq: int, mark: str, expected: Record) -> None:
    assert started(WHOLE, created=created, last_seq=last_seq, at=at, mark=mark) == expected


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        (5, WHOLE),
        (6, replace(WHOLE, reset=6, left=[], copying=None)),  # what followed it is dealt with already
        (9, replace(WHOLE, reset=9, left=[], copying=None, seq=9, id="reset")),
    ],
)
def test_what_was_named_before_a_reset_is_void(reset: int, expected: Record) -> None:
    assert of_epoch(WHOLE, reset, "reset") == expected


def test_without_a_record_it_begins_with_the_log() -> None:
    assert started(None, created=NOW, last_seq=9, at=AtRecord.GONE, mark="seen") == Record(NOW, 0, mark="seen")


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        (After(), ""),
        (After(AfterKind.SEEN), "seen"),
        (After(AfterKind.DELETE), "delete"),
        (After(AfterKind.MOVE, "INBOX"), "move mg-y1Ib8yD2c"),
    ],
)
def test_an_event_names_its_message_and_its_rule(rule: After, mark: str) -> None:
    assert rule.mark == mark
    headers = {AFTER_HEADER: rule.mark, "ce-subject": email_id("Box", 5, 6)}
    assert item_of("Box", mark, headers, 7) == Item(6, 5, 7)
    # What was announced is told by its fingerprint; a number of POP3's is known by its content, which IMAP cannot say.
    noted = {"Mail-State": "6 0123456789ab:ba9876543210 $seen"}
    assert item_of("Box", mark, headers | noted, 7) == Item(6, 5, 7, "0123456789ab")
    assert item_of("Box", mark, headers | {"Mail-State": "6 - $seen"}, 7) == Item(6, 5, 7)
    number = {"ce-subject": email_id("Box", 5, NUMBERS_FROM + 1)}
    assert item_of("Box", mark, headers | noted | number, 7) == Item(NUMBERS_FROM + 1, 5, 7)
    assert item_of("Other", mark, headers, 7) is None
    assert item_of("Box", "other", headers, 7) is None
    assert item_of("Box", mark, headers | {"ce-subject": "x"}, 7) is None
    assert item_of("Box", "seen", {"ce-subject": email_id("Box", 5, 6)}, 7) is None


def test_a_refused_message_is_tried_six_times_in_hours() -> None:
    pace, at, pauses = RefusedPace(), NOW, []
    for tries in range(1, 6):
        left = pace.next(Item(1, 2, 7, "aa"), tries, at)
        assert left == Left(1, 2, tries, left.at if left else at, 7, "aa")
        assert left is not None
        pauses.append((left.at - at).total_seconds() / 60)
        at = left.at
    assert pauses == [1, 4, 16, 64, 240]
    assert pace.next(Item(1, 2, 7), 6, at) is None


def test_of_those_that_wait_the_first_is_next() -> None:
    early, late = Left(1, 2, 1, NOW), Left(2, 2, 1, LATER)
    assert next_left([]) is None
    assert next_left([late, early]) == early
    assert (waits_s(None, NOW), waits_s(late, NOW), waits_s(late, LATER)) == (None, 86400.0, 0.0)
