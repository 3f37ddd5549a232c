"""Header fields in raw form: nothing is lost, changed or put in another order."""

import pytest

from service.mime import MimeLimits
from service.mime.header import find_end, parse_header
from tests.mime.mails import LIMITS, email_of, read, texts


def fields(block: bytes, limits: MimeLimits = LIMITS) -> list[tuple[str, str]]:
    return [(field.name, field.value) for field in parse_header(block, limits).fields]


def test_values_are_raw_and_in_order() -> None:
    # RFC 8621 4.1.2.1: everything after the colon.
    block = b"Received: b\r\nSubject:  Two  spaces \r\nreceived: a\r\n"
    assert fields(block) == [("Received", " b"), ("Subject", "  Two  spaces "), ("received", " a")]


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_a_fold_stays_in_the_raw_value(newline: str) -> None:
    block = f"Subject: one{newline} two{newline}\tthree{newline}To: a@b{newline}".encode()
    assert fields(block) == [("Subject", f" one{newline} two{newline}\tthree"), ("To", " a@b")]


def test_an_encoded_word_stays_encoded_in_the_raw_value() -> None:
    assert fields(b"Subject: =?utf-8?q?=C3=BC?=\r\n") == [("Subject", " =?utf-8?q?=C3=BC?=")]


def test_nul_is_dropped_and_bytes_that_are_not_utf8_are_replaced() -> None:
    # RFC 8621 4.1.2.1.
    assert fields(b"X: a\0b\r\n") == [("X", " ab")]
    assert fields(b"X: a\0\xffb\r\n") == [("X", " a\ufffdb")]


def test_our_own_reading_of_8bit_bytes_is_by_the_charset_they_look_like() -> None:
    raw = "Subject: Größe der Bücher für die Universität, äußerst müde\r\n".encode("latin-1")
    header = parse_header(raw, LIMITS)
    assert header.values["subject"].strip() == "Größe der Bücher für die Universität, äußerst müde"
    assert "\ufffd" in header.fields[0].value


def test_utf8_in_a_header_is_text() -> None:
    # RFC 6532.
    assert email_of("Subject: Zoë schläft\n\n").subject == "Zoë schläft"


def test_of_several_fields_the_last_counts() -> None:
    # RFC 8621 4.1.3.
    assert email_of("Subject: one\nSubject: two\n\n").subject == "two"


def test_white_space_before_the_colon_is_allowed() -> None:
    # RFC 5322 4.5.
    assert fields(b"Subject : x\r\n") == [("Subject", " x")]


def test_lines_that_are_no_fields_are_left_out_and_noticed() -> None:
    header = parse_header(b"Subject: x\r\nno field\r\nbad name: y\r\nTo: a@b\r\n", LIMITS)
    assert [field.name for field in header.fields] == ["Subject", "To"]
    assert header.junk


def test_the_line_that_mbox_puts_first_is_no_junk() -> None:
    header = parse_header(b"From a@example.org Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n", LIMITS)
    assert [field.name for field in header.fields] == ["Subject"]
    assert not header.junk


@pytest.mark.parametrize(
    "raw",
    [b"A: b\r\n\r\nbody", b"A: b\n\nbody", b"A: b\r\n\nbody", b"A: b\n\r\nbody", b"A: b\r\r\n\r\r\nbody"],
)
def test_the_header_ends_at_the_first_empty_line(raw: bytes) -> None:
    end = find_end(raw, 0, len(raw))
    assert raw[end.body :] == b"body"
    assert fields(raw[: end.header]) == [("A", " b")]


def test_a_line_of_white_space_does_not_end_the_header() -> None:
    assert email_of(b"Subject: a\r\n \r\n b\r\nTo: x@y\r\n\r\n").to is not None


def test_an_empty_line_far_beyond_the_first_window_is_found() -> None:
    raw = b"X: " + b"y" * 40_000 + b"\r\n\r\nbody"
    assert raw[find_end(raw, 0, len(raw)).body :] == b"body"


def test_a_header_with_no_empty_line_is_all_header() -> None:
    parsed = read(b"Subject: x\r\nTo: a@b.example")
    assert parsed.email.subject == "x"
    assert texts(parsed) == [""]


@pytest.mark.fault("C03")
def test_fields_over_the_limit_are_left_out_and_named() -> None:
    raw = b"".join(b"X-%d: y\r\n" % number for number in range(100_000)) + b"\r\nhi"
    parsed = read(raw)
    assert len(parsed.email.headers) <= LIMITS.header_count
    assert parsed.email.headers[0].name == "X-0"
    assert "headers" in parsed.truncated
    assert texts(parsed) == ["hi"]


@pytest.mark.fault("C04")
@pytest.mark.parametrize("filler", [b"X: y\r\n", b"X:" + b"y" * 997 + b"\r\n", b" folded\r\n"])
def test_a_header_of_10_mb_is_cut_at_a_line(filler: bytes) -> None:
    raw = b"Subject: first\r\n" + filler * (10_000_000 // len(filler)) + b"\r\nhi"
    parsed = read(raw)
    assert (parsed.email.subject or "").startswith("first")
    assert "headers" in parsed.truncated
    assert texts(parsed) == ["hi"]


@pytest.mark.fault("C04")
def test_one_field_over_the_limit_is_cut_within() -> None:
    parsed = read(b"Subject: " + b"x" * 3_000_000 + b"\r\n\r\nhi")
    assert (parsed.email.subject or "").startswith("xxx")
    assert {"headers", "subject"} <= set(parsed.truncated)
    assert texts(parsed) == ["hi"]
