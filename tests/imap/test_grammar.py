"""Responses → what they say, with what real servers get wrong."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imapclient.response_parser import parse_fetch_response

from service.commands.get import FIELDS_LIMIT
from service.errors import PeerError
from service.imap.grammar import (
    Capabilities,
    Condition,
    Continuation,
    Enabled,
    Exists,
    Expunged,
    FetchData,
    Listed,
    Other,
    Search,
    Status,
    StatusData,
    parse_date,
    parse_flags,
    parse_number,
    parse_response,
    parse_values,
)


@pytest.mark.parametrize(
    ("line", "response"),
    [
        (b"* 23 EXISTS", Exists(23)),
        (b"* 44 EXPUNGE", Expunged(44)),
        (b"+ idling", Continuation("idling")),
        (b"+", Continuation("")),
        (b"* CAPABILITY imap4rev1 IDLE", Capabilities(frozenset({"IMAP4REV1", "IDLE"}))),
        (b"* ENABLED UTF8=ACCEPT", Enabled(frozenset({"UTF8=ACCEPT"}))),
        (b"* SEARCH 2 84 882", Search([2, 84, 882])),
        (b"* SEARCH", Search([])),
        (b'* ESEARCH (TAG "A1") UID MIN 7 COUNT 3', Search([7], tag="A1")),
        (b"* ESEARCH (tag A1) UID", Search([], tag="A1")),
        (b"* ESEARCH UID MIN 7", Search([7])),
        (b"* ESEARCH ((TAG) A1) UID MIN 7", Search([7])),
        (b'* LIST (\\Sent) "/" "a \\"b\\""', Listed(frozenset({"\\sent"}), "/", b'a "b"')),
        (b"* LIST () NIL INBOX", Listed(frozenset(), None, b"INBOX")),
        (b"* OK ready", Condition("", Status.OK, "", "", "ready")),
        (b"* OK [UIDNEXT 4392] next", Condition("", Status.OK, "UIDNEXT", "4392", "next")),
        (b"* BYE", Condition("", Status.BYE, "", "", "")),
        (b"A1 no [AUTHENTICATIONFAILED] wrong", Condition("A1", Status.NO, "AUTHENTICATIONFAILED", "", "wrong")),
        (b"* FLAGS (\\Seen)", Other("FLAGS")),
        (b"* 5 RECENT", Other("RECENT")),
        (b"* XLIST something", Other("XLIST")),
    ],
)
def test_a_response_is_read(line: bytes, response: object) -> None:
    assert parse_response([line]) == response


def test_message_data_is_read_by_name() -> None:
    pieces = [b'* 12 FETCH (FLAGS (\\Seen $X) BODY[HEADER.FIELDS ("From" To)] ', b"From: a", b" UID 7 ENVELOPE NIL)"]
    assert parse_response(pieces) == FetchData(
        12,
        {"FLAGS": [b"\\Seen", b"$X"], 'BODY[HEADER.FIELDS ("FROM" TO)]': b"From: a", "UID": b"7", "ENVELOPE": None},
    )


@pytest.mark.parametrize(("names", "length"), [(29, 36), (FIELDS_LIMIT, 255)])
def test_header_fields_are_read_however_long_their_names_are_together(names: int, length: int) -> None:
    fields = " ".join(f"X{n:02}".ljust(length, "-") for n in range(names))
    section = f"BODY[HEADER.FIELDS ({fields})]<0>"
    pieces = [b"* 12 FETCH (UID 7 %s " % section.encode(), b"X00: a\r\n\r\n", b")"]
    assert parse_response(pieces) == FetchData(12, {"UID": b"7", section: b"X00: a\r\n\r\n"})


def test_the_usual_survey_is_read_like_any_other_order() -> None:
    date = b'INTERNALDATE " 1-Nov-2026 10:00:00 +0000"'
    usual = parse_response([b"* 3 FETCH (UID 7 FLAGS (\\Seen) " + date + b" RFC822.SIZE 12)"])
    other = parse_response([b"* 3 FETCH (RFC822.SIZE 12 FLAGS (\\Seen) " + date + b" UID 7)"])
    assert isinstance(usual, FetchData)
    assert isinstance(other, FetchData)
    for data in (usual, other):
        assert parse_number(data.items["UID"]) == 7
        assert parse_number(data.items["RFC822.SIZE"]) == 12
        assert parse_flags(data.items["FLAGS"]) == frozenset({"\\Seen"})
        assert parse_date(data.items["INTERNALDATE"]) == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_a_keyword_with_brackets_is_a_keyword() -> None:
    data = parse_response([b"* 1 FETCH (FLAGS (a[b \\Seen [x]) UID 5)"])
    assert isinstance(data, FetchData)
    assert parse_flags(data.items["FLAGS"]) == frozenset({"a[b", "\\Seen", "[x]"})
    assert parse_number(data.items["UID"]) == 5


@pytest.mark.fault("A10")
@pytest.mark.parametrize("name", ["UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "BODY[]"])
def test_nil_in_any_field_is_no_value(name: str) -> None:
    data = parse_response([b"* 1 FETCH (%s NIL)" % name.encode()])
    assert isinstance(data, FetchData)
    value = data.items[name]
    assert (parse_number(value), parse_flags(value), parse_date(value)) == (None, frozenset(), None)


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    "date", [b'"32-Nov-2026 10:00:00 +0000"', b'"01-Foo-2026 10:00:00 +0000"', b'""', b"x", b'"1-Jan-0000 0:0:0 +0000"']
)
def test_a_date_that_is_none_is_none(date: bytes) -> None:
    assert parse_date(date) is None


def test_a_date_is_given_in_utc_with_its_zone_and_leap_second() -> None:
    assert parse_date(b'"17-Jul-1996 02:44:60 -0730"') == datetime(1996, 7, 17, 10, 14, 59, tzinfo=UTC)


# Each of them took minutes once, in which nobody else was served.
LONG_LINES = {
    "a string of escaped quotes without an end": b'* LIST () "/" "' + b'\\"' * 120_000,
    "a string without an end after each of its quotes": b'* LIST () "/" "' + b'\\" ' * 80_000,
    "spaces": b"* LIST () NIL x" + b" " * 240_000,
    "sections without an end": b"* 1 FETCH (UID 1" + b" BODY[" * 40_000,
    "sections within sections": b"* 1 FETCH (UID 1" + b" BODY[" * 40_000 + b"]",
    "a section of spaces without an end": b"* 1 FETCH (UID 1 BODY[" + b" " * 240_000,
    "spaces in a status": b"* OK [" + b" " * 240_000,
    "sections with half an offset": b"* 1 FETCH (UID 1" + b" BODY[]<1" * 25_000,
}


@pytest.mark.fault("A13")
@pytest.mark.parametrize("line", LONG_LINES)
def test_a_long_line_is_read_once_and_not_once_for_each_of_its_words(line: str) -> None:
    with suppress(PeerError):
        parse_response([LONG_LINES[line]])


@pytest.mark.parametrize(
    ("line", "response"),
    [
        (
            b'* 1 FETCH (UID 5 FLAGS (5"disk \\Seen))',
            FetchData(1, {"UID": b"5", "FLAGS": [b"5", b"disk", b"\\Seen"]}),
        ),
        (b'* LIST () "\\" foo', Listed(frozenset(), "\\", b"foo")),
        (b'* LIST () "/" "a\\"', Listed(frozenset(), "/", b"a\\")),
        (b'* STATUS "a\\" (MESSAGES 3)', StatusData(b"a\\", {"MESSAGES": b"3"})),
    ],
)
def test_a_quote_without_its_like_hides_nothing_of_what_follows(line: bytes, response: object) -> None:
    assert parse_response([line]) == response


def test_what_is_escaped_in_a_string_is_part_of_it() -> None:
    assert parse_values([b'"\\\\\\"" "\\a\\\\"'], 0) == [b'\\"', b"a\\"]


@pytest.mark.fault("A13")
def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(PeerError, match="nested"):
        parse_response([b"* 1 FETCH (BODYSTRUCTURE " + b"(" * 10_000])


@pytest.mark.parametrize("line", [b"* 1 FETCH (UID 5", b"* 1 FETCH (UID 5))", b"garbage", b"A1 MAYBE", b"\xff\xfe"])
def test_what_is_no_imap_is_a_peer_error(line: bytes) -> None:
    with pytest.raises(PeerError):
        parse_response([line])


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=5).filter(lambda pieces: len(pieces) % 2))
def test_any_pieces_give_a_response_or_a_refusal(pieces: list[bytes]) -> None:
    with suppress(PeerError):
        parse_response([b"* " + pieces[0], *pieces[1:]])


atoms = st.text("abcXYZ0123456789.$\\-", min_size=1, max_size=8).filter(
    lambda s: s.upper() != "NIL" and not s.isdigit()
)
strings = st.text('ab \\"()[]{}é', max_size=12)


@given(st.lists(st.tuples(atoms, strings), max_size=5), st.integers(1, 10**9))
def test_it_reads_what_imapclient_reads(pairs: list[tuple[str, str]], uid: int) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    fields = "".join(f" X-{i} ({atom} {quote(text)})" for i, (atom, text) in enumerate(pairs))
    line = f"1 (UID {uid}{fields})".encode()
    theirs = parse_fetch_response([line])[uid]
    ours = parse_values([line], 1)[0]
    assert isinstance(ours, list)
    for i in range(len(pairs)):
        name = f"X-{i}".encode()
        assert list(theirs[name]) == ours[ours.index(name) + 1]
