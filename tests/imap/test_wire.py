"""Bytes → responses: whole, whatever the pieces they come in, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PeerError
from service.imap.wire import ResponseSplitter, WireLimits

LIMITS = WireLimits(literal_bytes=1000, text_bytes=2000, line_bytes=2000)


def split(chunks: list[bytes], limits: WireLimits = LIMITS) -> list[list[bytes]]:
    splitter = ResponseSplitter(limits)
    found = []
    for chunk in chunks:
        splitter.feed(chunk)
        while (response := splitter.next_response()) is not None:
            found.append(response)
    return found


def test_a_line_is_a_response() -> None:
    assert split([b"* OK ready\r\n* 3 EXISTS\r\n"]) == [[b"* OK ready"], [b"* 3 EXISTS"]]


def test_a_literal_is_cut_out_of_its_line() -> None:
    assert split([b"* 1 FETCH (BODY[] {5}\r\nab\r\nc UID 4)\r\n"]) == [[b"* 1 FETCH (BODY[] ", b"ab\r\nc", b" UID 4)"]]


def test_an_empty_literal_is_an_empty_piece() -> None:
    assert split([b"* 1 FETCH (BODY[] {0}\r\n)\r\n"]) == [[b"* 1 FETCH (BODY[] ", b"", b")"]]


def test_a_binary_literal_loses_its_tilde() -> None:
    assert split([b"* 1 FETCH (BINARY[] ~{2}\r\nab)\r\n"]) == [[b"* 1 FETCH (BINARY[] ", b"ab", b")"]]


def test_lines_that_end_with_lf_alone_are_lines() -> None:
    assert split([b"* OK a\n* OK b\r\n"]) == [[b"* OK a"], [b"* OK b"]]


def test_text_for_people_may_end_like_a_literal() -> None:
    assert split([b"* OK see {5}\r\n* 1 EXISTS\r\nA1 NO see {7}\r\n"]) == [
        [b"* OK see {5}"],
        [b"* 1 EXISTS"],
        [b"A1 NO see {7}"],
    ]


@pytest.mark.parametrize("kind", [b"SEARCH", b"esearch", b"SORT", b"VANISHED"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_says_all_of_a_mailbox_may_be_a_long_line_and_nothing_else(kind: bytes, size: int) -> None:
    limits = WireLimits(literal_bytes=1000, text_bytes=2000, line_bytes=500)
    line = b"* %b " % kind + b"1 " * 900
    assert split([line[at : at + size] for at in range(0, len(line), size)] + [b"\r\n"], limits) == [[line]]
    for other in (b"* LIST ", b"* OK ", b"* SEARCHED ", b"A1 OK SEARCH ", b"* X {1}\r\n* SEARCH "):
        with pytest.raises(PeerError, match="without an end: over 500 bytes"):
            split([other, *(line[at : at + size] for at in range(0, len(line), size))], limits)


@given(st.lists(st.binary(min_size=0, max_size=30), min_size=1, max_size=5), st.data())
def test_the_pieces_of_the_network_do_not_matter(literals: list[bytes], data: st.DataObject) -> None:
    stream = b""
    for literal in literals:
        stream += b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\n" % (len(literal), literal)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(chunks) == [[b"* 1 FETCH (BODY[] ", literal, b")"] for literal in literals]


@pytest.mark.fault("A12")
@pytest.mark.parametrize("size", ["4294967296", "-1", "1001"])
def test_a_literal_over_the_limit_is_refused_before_it_is_read(size: str) -> None:
    with pytest.raises(PeerError, match="literal"):
        split([b"* 1 FETCH (BODY[] {%s}\r\n" % size.encode()])


@pytest.mark.fault("A13")
def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(PeerError, match="without an end"):
        split([b"* X " + b"a" * 100] * 30)


@pytest.mark.fault("A13")
def test_many_small_literals_are_refused() -> None:
    with pytest.raises(PeerError, match="literals"):
        split([b"* LIST " + b"{0}\r\n" * 3000], WireLimits(literal_bytes=10, text_bytes=100_000))


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes_give_responses_or_a_refusal(chunks: list[bytes]) -> None:
    try:
        for response in split(chunks):
            assert len(response) % 2 == 1
    except PeerError:
        pass
