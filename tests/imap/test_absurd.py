"""What no mailbox, message or language has: passed by before anybody waits for it, or keeps it."""

import weakref

import pytest

from service.contract import keywords_of, mailbox_name, normal_form
from service.contract.ids import MARKS_LIMIT
from service.errors import PeerError
from service.imap.encode import decode_mailbox
from service.imap.grammar import (
    FLAG_LIMIT_BYTES,
    FLAGS_LIMIT,
    NAME_LIMIT_BYTES,
    Listed,
    Other,
    StatusData,
    parse_flags,
    parse_response,
)
from service.imap.identity import LABELS, LABELS_LIMIT_BYTES, Labelling
from service.imap.names import LIST_LIMIT, LIST_LIMIT_BYTES, ListedNames
from service.imap.wire import ResponseSplitter, WireLimits

# Two marks of two classes: to order them takes the square of their number, 14 s for 256 KB.
MARKS = "\u0315\u0300"


@pytest.mark.fault("A13")
def test_a_text_of_nothing_but_marks_stays_as_it_is() -> None:
    for text in (MARKS * 60_000, "a" + MARKS * MARKS_LIMIT):
        assert normal_form(text) == text
        assert decode_mailbox(text.encode(), utf8=True) == mailbox_name(text) == text
    few = "e\u0301" + MARKS * (MARKS_LIMIT // 2 - 1)
    assert normal_form(few).startswith("\u00e9")


@pytest.mark.fault("A13")
def test_a_name_that_no_file_system_would_hold_is_no_mailboxs() -> None:
    longest = b"x" * NAME_LIMIT_BYTES
    assert parse_response([b'* LIST () "/" ' + longest]) == Listed(frozenset(), "/", longest)
    assert parse_response([b'* LIST () "/" ', longest + b"x", b""]) == Other("LIST")
    assert parse_response([b"* STATUS " + longest + b" (UNSEEN 1)"]) == StatusData(longest, {"UNSEEN": b"1"})
    assert parse_response([b"* STATUS " + longest + b"x (UNSEEN 1)"]) == Other("STATUS")


@pytest.mark.fault("A13")
@pytest.mark.parametrize("before", [b'* LIST () "/" ', b"* STATUS ", b'* 1 LIST () "/" '])
def test_a_literal_as_long_as_a_message_is_taken_in_a_fetch_alone(before: bytes) -> None:
    limits = WireLimits(literal_bytes=1_000_000, line_bytes=1_000)
    splitter = ResponseSplitter(limits)
    splitter.feed(b"* 1 fetch (BODY[] {900000}\r\n" + b"x" * 900_000 + b")\r\n")
    assert splitter.next_response() is not None
    splitter.feed(before + b"{1001}\r\n")
    with pytest.raises(PeerError, match="the limit is 1000"):
        splitter.next_response()


@pytest.mark.fault("A13")
@pytest.mark.parametrize("name", [b"x", b"x" * NAME_LIMIT_BYTES])
def test_a_list_has_an_end_however_short_or_long_its_names(name: bytes) -> None:
    names = ListedNames(utf8=False)
    taken = sum(names.take(name) is not None for _ in range(LIST_LIMIT + 1))
    assert taken == min(LIST_LIMIT, LIST_LIMIT_BYTES // len(name))
    assert not names.whole


@pytest.mark.fault("A13")
def test_a_flag_that_is_no_keyword_is_none_and_a_hundred_are_not_remembered() -> None:
    longest = b"x" * FLAG_LIMIT_BYTES
    assert parse_flags([longest, b"y" * (FLAG_LIMIT_BYTES + 1)]) == {longest.decode()}
    flags = parse_flags([b"%d" % n for n in range(2 * FLAGS_LIMIT)])
    assert len(keywords_of(flags)) == FLAGS_LIMIT
    gone = weakref.ref(flags)
    del flags
    assert gone() is None


@pytest.mark.fault("A13")
def test_labels_end_where_no_header_would_hold_them() -> None:
    labelling = Labelling("Here")
    found = labelling.read({LABELS: [b"%01000d" % n for n in range(100)]})
    assert len(found.flags) == LABELS_LIMIT_BYTES // 1000
    assert labelling.read({LABELS: [b"x" * (LABELS_LIMIT_BYTES + 1)]}).flags == frozenset()
