"""Transfer encodings, whole and damaged. RFC 2045 section 6."""

import base64

import pytest

from service.mime.transfer import decode_transfer
from tests.mime.mails import multipart, read

BYTES = bytes(range(256)) * 3


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 114, 115, 768])
def test_base64_in_lines(size: int, newline: bytes) -> None:
    data = base64.encodebytes(BYTES[:size]).replace(b"\n", newline)
    for encoded in (data, data.rstrip(), data + newline + b" "):
        found = decode_transfer(encoded, "base64")
        assert (found.data, found.damaged) == (BYTES[:size], False)


@pytest.mark.parametrize(
    ("encoded", "data", "damaged"),
    [
        (b"aGVsbG8=", b"hello", False),
        (b"aGVs\r\nbG8=\r\n", b"hello", False),
        (b"aG Vs bG8=", b"hello", False),
        (b"aGVsbG8", b"hello", True),  # padding lost
        (b"aGVsb", b"hel", True),
        (b"aGVs*bG8=", b"hello", True),  # noise
        (b"aGVsbG8=\r\n-- \r\nA list's footer!", b"hello", True),
        # No padding to end at: the empty line does.
        (b"aGVsbG8gd29ybGQK\n\n______\nMailman footer\nlist@example.org\n", b"hello world\n", True),
        (b"aGVsbG8g\r\nd29ybGQK\r\n\r\nMailman footer\r\n______\r\nlists", b"hello world\n", True),
        (b"\n\n* aGVsbG8g\n\nd29ybGQK\n", b"hello world\n", True),  # nothing stands before it
        (b"aGVsbG8= ignored", b"hello", True),
        (b"aGVsbG8=\r\naGVsbG8=\r\n", b"hellohello", False),  # two encodings one after the other
        (b"!!!", b"", True),
        (b"=", b"", True),
        (b"", b"", False),
        ("aGVs\u00a0bG8=".encode(), b"hello", True),
    ],
)
def test_base64_that_is_damaged_gives_what_can_be_had(encoded: bytes, data: bytes, damaged: bool) -> None:
    found = decode_transfer(encoded, "base64")
    assert (found.data, found.damaged) == (data, damaged)


@pytest.mark.fault("C05")
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("footer", [b"", b"\nMailman footer\n______\nlist@example.org\n"])
def test_base64_between_empty_lines_goes_on_after_noise(footer: bytes, newline: bytes) -> None:
    spaced = base64.encodebytes(BYTES + b"end").replace(b"\n", b"\n\n")
    encoded = (spaced[:300] + b"!" + spaced[300:] + footer).replace(b"\n", newline)
    found = decode_transfer(encoded, "base64")
    assert (found.data, found.damaged) == (BYTES + b"end", True)


@pytest.mark.parametrize(
    ("encoded", "data", "damaged"),
    [
        (b"a=3Db", b"a=b", False),
        (b"a=3db", b"a=b", False),
        (b"soft =\r\nbreak", b"soft break", False),
        (b"soft =  \r\nbreak", b"soft break", False),
        (b"white   \r\nspace", b"white\r\nspace", False),  # RFC 2045 6.7 rule 3
        (b"a=XYb", b"a=XYb", True),
        (b"a=", b"a", False),
        (b"8\xfcbit", b"8\xfcbit", False),
        (b"a=00b", b"a\0b", False),
    ],
)
def test_quoted_printable(encoded: bytes, data: bytes, damaged: bool) -> None:
    found = decode_transfer(encoded, "quoted-printable")
    assert (found.data, found.damaged) == (data, damaged)


@pytest.mark.parametrize("name", ["7bit", "8bit", "binary", "", "7-bit"])
def test_identity(name: str) -> None:
    found = decode_transfer(BYTES, name)
    assert (found.data, found.damaged) == (BYTES, False)


def test_an_unknown_encoding_leaves_the_bytes_and_is_told() -> None:
    # RFC 8621 4.1.4: isEncodingProblem.
    value = read("Content-Transfer-Encoding: x-own\n\nhi").email.body_values["1"]
    assert (value.value, value.is_encoding_problem) == ("hi", True)


def test_the_name_of_an_encoding_may_be_dressed_up() -> None:
    for name in ("BASE64", " base64 ", "base64 (a comment)", '"base64"', "base64;"):
        assert read(f"Content-Transfer-Encoding: {name}\n\naGVsbG8=").email.body_values["1"].value == "hello"


@pytest.mark.fault("C05")
def test_a_text_with_damaged_base64_is_shown_told_and_kept() -> None:
    parsed = read("Content-Transfer-Encoding: base64\n\naGVs*bG8=")
    value = parsed.email.body_values["1"]
    assert (value.value, value.is_encoding_problem) == ("hello", True)
    assert parsed.blobs == {"1": b"hello"}
    assert not parsed.whole


@pytest.mark.fault("C05")
def test_an_attachment_with_damaged_base64_is_a_problem_and_the_others_are_not() -> None:
    bad = "Content-Type: application/pdf; name=bad.pdf\nContent-Transfer-Encoding: base64\n\n*a*"
    good = "Content-Type: application/pdf; name=good.pdf\nContent-Transfer-Encoding: base64\n\naGVsbG8="
    parsed = read(multipart("b", "\nhi", bad, good))
    assert parsed.problem is not None
    assert parsed.problem.type == "unparseable"
    assert parsed.problem.detail.startswith("part 2")
    assert parsed.blobs["3"] == b"hello"
    assert parsed.email.body_values["1"].value == "hi"


def test_uuencode() -> None:
    found = decode_transfer(b"begin 644 a.txt\n%:&5L;&\\\n`\nend\n", "x-uuencode")
    assert (found.data, found.damaged) == (b"hello", False)
