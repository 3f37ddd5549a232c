"""Bytes from a POP3 server → pieces, however they are cut; commands that are one line whatever is in them."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MailbusError, PeerError, Permanent
from service.pop3 import wire
from service.pop3.wire import (
    LINE_LIMIT_BYTES,
    Challenge,
    Message,
    Piece,
    ReplyParser,
    Rows,
    Shape,
    Status,
    command,
    parse_banner,
    parse_capabilities,
    parse_sizes,
    parse_uidls,
    unstuffed,
)

LIMIT = 1000


def parser_of(*shapes: Shape) -> ReplyParser:
    parser = ReplyParser()
    for shape in shapes:
        parser.expect(shape, LIMIT)
    return parser


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbouring lines of one listing as one: where a packet ends says nothing."""
    found: list[Piece] = []
    for piece in pieces:
        before = found[-1] if found else None
        if isinstance(piece, Rows) and isinstance(before, Rows) and not before.last:
            found[-1] = Rows(before.rows + piece.rows, piece.last)
        else:
            found.append(piece)
    return found


def fed(parser: ReplyParser, chunks: Iterable[bytes]) -> list[Piece]:
    return joined(piece for chunk in chunks for piece in parser.feed(chunk))


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


OK, NO = Status(True, "", ""), Status(False, "", "")
CASES = [
    ("a status", [Shape.LINE], b"+OK\r\n", [OK]),
    ("a status with text", [Shape.LINE], b"+OK  ready \r\n", [Status(True, "", "ready")]),
    ("in any case", [Shape.LINE], b"-err no\r\n", [Status(False, "", "no")]),
    ("a code", [Shape.LINE], b"-ERR [IN-USE] locked\r\n", [Status(False, "IN-USE", "locked")]),
    ("a code with a level", [Shape.LINE], b"-ERR [sys/temp] down\r\n", [Status(False, "SYS/TEMP", "down")]),
    ("brackets that are no code", [Shape.LINE], b"-ERR [ ] x\r\n", [Status(False, "", "[ ] x")]),
    ("a challenge", [Shape.LINE], b"+ eyJ9\r\n-ERR no\r\n", [Challenge("eyJ9"), Status(False, "", "no")]),
    ("an empty challenge", [Shape.LINE], b"+\r\n+OK\r\n", [Challenge(""), OK]),
    ("no lines", [Shape.ROWS], b"+OK\r\n.\r\n", [OK, Rows([], True)]),
    ("lines", [Shape.ROWS], b"+OK\r\n1 a\r\n..2\r\n.\r\n", [OK, Rows([b"1 a", b".2"], True)]),
    ("no lines after -ERR", [Shape.ROWS, Shape.LINE], b"-ERR\r\n+OK\r\n", [NO, OK]),
    ("an empty message", [Shape.MESSAGE], b"+OK\r\n.\r\n", [OK, Message(b"")]),
    ("a message", [Shape.MESSAGE], b"+OK\r\na\r\n\r\nb\r\n.\r\n", [OK, Message(b"a\r\n\r\nb\r\n")]),
    ("stuffing", [Shape.MESSAGE], b"+OK\r\n..a\r\n..\r\n.\r\n", [OK, Message(b".a\r\n.\r\n")]),
    ("a dot after a bare LF", [Shape.MESSAGE], b"+OK\r\na\n.\r\nb\r\n.\r\n", [OK, Message(b"a\n.\r\nb\r\n")]),
    (
        "pipelined",
        [Shape.MESSAGE, Shape.LINE, Shape.MESSAGE],
        b"+OK\r\na\r\n.\r\n-ERR\r\n+OK\r\nb\r\n.\r\n",
        [OK, Message(b"a\r\n"), NO, OK, Message(b"b\r\n")],
    ),
]  # fmt: skip


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(("shapes", "data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.fault("B06")
def test_replies_are_the_same_however_they_come(
    cut: Callable[[bytes], list[bytes]], shapes: list[Shape], data: bytes, expected: list[Piece]
) -> None:
    parser = parser_of(*shapes)
    assert fed(parser, cut(data)) == expected
    assert parser.empty
    # With more behind it: the next reply, as far as it has come.
    trailing = parser_of(*shapes, Shape.LINE)
    assert fed(trailing, [data + b"+O"]) == expected
    assert not trailing.empty


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        (Shape.LINE, b"* OK IMAP\r\n"),
        (Shape.LINE, b"+OK" + b"x" * LINE_LIMIT_BYTES),
        (Shape.LINE, b"+OK" + b"x" * LINE_LIMIT_BYTES + b"\r\n"),
        (Shape.LINE, b"+OK\r\n+OK\r\n"),
        (Shape.ROWS, b"+OK\r\n1 " + b"x" * LINE_LIMIT_BYTES),
        (Shape.ROWS, b"+OK\r\n1 " + b"x" * LINE_LIMIT_BYTES + b"\r\n.\r\n"),
        (Shape.ROWS, b"+OK\r\n" + b"1 a\r\n" * LIMIT),
        (Shape.MESSAGE, b"+OK\r\n" + b"x" * (LIMIT + 10)),
        (Shape.MESSAGE, b"+OK\r\n" + b"x" * (LIMIT + 1) + b"\r\n.\r\n"),
    ],
)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.fault("B06")
def test_what_is_no_reply_or_has_no_end_is_refused(
    cut: Callable[[bytes], list[bytes]], shape: Shape, data: bytes
) -> None:
    with pytest.raises(PeerError):
        fed(parser_of(shape), cut(data))


def test_a_listing_has_so_many_lines_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ROWS_LIMIT", 3)
    with pytest.raises(PeerError):
        fed(parser_of(Shape.ROWS), [b"+OK\r\n1\r\n2\r\n", b"3\r\n4\r\n"])


SHAPES = st.lists(st.sampled_from(Shape), max_size=5)
# Bytes that mean something to a parser, more often than chance would have them.
HOSTILE = st.lists(
    st.sampled_from([b"+OK", b"-ERR", b"\r\n", b".", b"\r", b"\n", b" ", b"1 a", b"+ ", b"[X] ", b"\x00", b"\xff"])
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)


@given(SHAPES, HOSTILE, st.lists(st.integers(1, 9), max_size=30))
@pytest.mark.fault("B06", "G07")
def test_any_bytes_give_pieces_or_a_peer_error_the_same_for_any_split(
    shapes: list[Shape], data: bytes, sizes: list[int]
) -> None:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    chunks.append(data[at:])

    def outcome(pieces: Iterable[bytes]) -> tuple[list[Piece], bool]:
        found: list[Piece] = []
        parser = parser_of(*shapes)
        try:
            for chunk in pieces:
                found.extend(parser.feed(chunk))
        except PeerError:
            return joined(found), True
        return joined(found), False

    assert outcome(chunks) == outcome([data])


def stuffed(body: bytes) -> bytes:
    body = body.replace(b"\r\n.", b"\r\n..")
    return b"." + body if body.startswith(b".") else body


LINES = st.lists(st.sampled_from([b".", b"..", b"a", b"\n.", b".\n", b"\r", b""]) | st.binary(max_size=6), max_size=12)


@given(LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines)))
@pytest.mark.fault("B06")
def test_what_a_server_stuffs_comes_out_as_it_was(body: bytes) -> None:
    assert unstuffed(stuffed(body)) == body
    assert fed(parser_of(Shape.MESSAGE), [b"+OK\r\n" + stuffed(body) + b".\r\n"])[1:] == [Message(body)]


@given(st.text(max_size=60), st.text(max_size=60))
@pytest.mark.fault("G07")
def test_a_command_is_one_line_whatever_is_in_it(username: str, password: str) -> None:
    try:
        data = command("APOP", username, password)
    except Permanent:
        return
    assert data.endswith(b"\r\n")
    assert not {byte for byte in data[:-2] if byte < 0x20 or byte == 0x7F}
    assert len(data) <= 255


@pytest.mark.parametrize("bad", ["a\r\nDELE 1", "a\nb", "a\x00", "\x7f", "\ud800", "x" * 300])
@pytest.mark.fault("G07")
def test_what_would_begin_another_command_is_refused(bad: str) -> None:
    with pytest.raises(Permanent):
        command("USER", bad)


@pytest.mark.fault("B03")
def test_an_id_that_is_none_is_empty() -> None:
    rows = [b"1 whqtswO00WBw418f9t5JxYwZ", b"2", b"3 ", b"4 " + b"x" * 70, b"5 " + b"x" * 71, b"6 a b", b"7 \xc3\xa4"]
    ids = dict(parse_uidls(rows))
    assert [number for number, uidl in ids.items() if uidl] == [1, 4]
    assert ids[1] == b"whqtswO00WBw418f9t5JxYwZ"


@pytest.mark.parametrize("row", [b"", b"x 5", b"0 5", b"-1 5", b"1", b"1 -5", b"99999999999 1", b"2147483648 1"])
@pytest.mark.fault("B06")
def test_sizes_and_numbers_that_are_none_are_refused(row: bytes) -> None:
    with pytest.raises(PeerError):
        parse_sizes([row])


def test_what_follows_a_size_is_left_out() -> None:
    assert parse_sizes([b"1 120 octets", b"2\t0"]) == [(1, 120), (2, 0)]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_listing_gives_rows_or_a_peer_error(rows: list[bytes]) -> None:
    for parse in (parse_sizes, parse_uidls):
        try:
            assert len(parse(rows)) == len(rows)
        except MailbusError as exc:
            assert isinstance(exc, PeerError)  # noqa: PT017 which error it is is the point


def test_capabilities_are_read_in_capitals() -> None:
    assert parse_capabilities([b"Sasl PLAIN login", b"", b"PIPELINING"]) == {
        "SASL": ("PLAIN", "LOGIN"),
        "PIPELINING": (),
    }


def test_a_banner_has_the_timestamp_of_a_greeting() -> None:
    assert parse_banner("ready <1896.697170952@dbc.mtview.ca.us>") == "<1896.697170952@dbc.mtview.ca.us>"
    assert parse_banner("ready <3") == ""
