"""Replies cut out of bytes, commands and messages made of values. Pure."""

import re
import smtplib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import PeerError, Permanent
from service.smtp.wire import (
    COPIED_BYTES,
    LINE_LIMIT_BYTES,
    Reply,
    ReplyParser,
    bare_line_end,
    mail_command,
    rcpt_command,
    stuffed,
)

REPLIES = [
    (b"250 OK\r\n", [Reply(250, None, "OK")]),
    (b"250\r\n", [Reply(250, None, "")]),
    (b"250 2.1.5 OK\r\n", [Reply(250, "2.1.5", "OK")]),
    (b"550-5.1.1 The account\r\n550 5.1.1 does not exist\r\n", [Reply(550, "5.1.1", "The account does not exist")]),
    (b"250-relay\r\n250-SIZE 1\r\n250 8BITMIME\r\n", [Reply(250, None, "relay SIZE 1 8BITMIME")]),
    (b"250 a\n354 b\n", [Reply(250, None, "a"), Reply(354, None, "b")]),
    (b"451 4.7.1 gr\xc3\xbcn\r\n", [Reply(451, "4.7.1", "grün")]),
    (b"451 \xff\x01\r\n", [Reply(451, None, "\N{REPLACEMENT CHARACTER}?")]),
    (b"554 5.7.1\r\n", [Reply(554, "5.7.1", "")]),
    (b"220 5.1.1000 x\r\n", [Reply(220, None, "5.1.1000 x")]),
]


@pytest.mark.fault("E09")
@pytest.mark.parametrize(("wire", "expected"), REPLIES)
def test_replies(wire: bytes, expected: list[Reply]) -> None:
    """Whole, byte by byte, with trailing bytes."""
    assert list(ReplyParser().feed(wire)) == expected
    parser = ReplyParser()
    assert [reply for i in range(len(wire)) for reply in parser.feed(wire[i : i + 1])] == expected
    assert not parser.pending
    parser = ReplyParser()
    assert list(parser.feed(wire + b"25")) == expected
    assert parser.pending


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"25 OK\r\n",
        b"650 OK\r\n",
        b"\r\n",
        b"250-a\r\n251 b\r\n",
        b"250 " + b"x" * LINE_LIMIT_BYTES + b"\r\n",
        b"x" * (LINE_LIMIT_BYTES + 1),
        b"250-x\r\n" * 70_000,
    ],
)
def test_what_is_no_reply_is_the_peers_error(wire: bytes) -> None:
    with pytest.raises(PeerError):
        list(ReplyParser().feed(wire))


@given(st.binary(max_size=400))
def test_any_bytes_give_replies_or_a_peer_error(wire: bytes) -> None:
    try:
        for reply in ReplyParser().feed(wire):
            assert str(reply).isprintable()
    except PeerError:
        pass


def test_commands() -> None:
    assert mail_command("a@x", {"SIZE": "12", "SMTPUTF8": None}) == b"MAIL FROM:<a@x> SIZE=12 SMTPUTF8\r\n"
    assert mail_command("", {}) == b"MAIL FROM:<>\r\n"
    assert rcpt_command("jürgen@x", {}) == "RCPT TO:<jürgen@x>\r\n".encode()


@pytest.mark.fault("G07")
@settings(max_examples=1000)
@given(st.text(st.sampled_from('a@.\r\n\0<> \t{5}"\x85\u2028\u00a0ü\x7f'), max_size=20) | st.text(max_size=20))
def test_an_address_is_refused_or_stays_one_path_of_one_command(address: str) -> None:
    try:
        command = rcpt_command(address, {})
    except Permanent:
        return
    assert re.fullmatch(rb"RCPT TO:<[^\x00-\x20\x7f<>]+>\r\n", command)


@pytest.mark.fault("E11")
@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"..", b"x", b"\r\n.\r\n", b"From ", b"\xff"]), max_size=30).map(b"".join)
)
def test_stuffing_leaves_one_end_and_unstuffs_to_the_same(data: bytes) -> None:
    wire = stuffed(data) + b".\r\n"
    assert wire.find(b"\r\n.\r\n", 0) in (-1, len(wire) - 5)
    lines = wire.removesuffix(b".\r\n").split(b"\r\n")
    unstuffed = b"\r\n".join(line.removeprefix(b".") for line in lines)
    assert unstuffed == (data if data.endswith(b"\r\n") else data + b"\r\n")
    # The oracle: the standard library's own quoting.
    assert stuffed(data) == smtplib._quote_periods(data if data.endswith(b"\r\n") else data + b"\r\n")  # type: ignore[attr-defined]


@pytest.mark.fault("E11")
@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\r\n", b"\n", b"\r"])
def test_no_bare_line_end_goes_out(end: bytes) -> None:
    for data in (end, b"x" + end, b"x\r\n" + end + b"y\r\n", b"x" * 65535 + end):
        assert bare_line_end(data) is not None
        with pytest.raises(Permanent):
            stuffed(data)


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x"]), max_size=12).map(b"".join),
    st.sampled_from([b"", b"x\r\n" * COPIED_BYTES]),
)
def test_a_bare_line_end_is_found_wherever_it_is(data: bytes, before: bytes) -> None:
    stripped = re.sub(rb"\r\n", b"", data)
    assert (bare_line_end(before + data) is not None) == (b"\r" in stripped or b"\n" in stripped)
