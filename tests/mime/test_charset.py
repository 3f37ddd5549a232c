"""Bytes to text, whatever the label says."""

import pytest

from service.contract import encode
from service.mime.charset import decode
from tests.mime.mails import read

GERMAN = "Die Größe der Bücher überrascht, und schön sind sie außerdem."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю"
JAPANESE = "これは日本語の文章です。漢字とかなが混ざっています。"


@pytest.mark.parametrize(
    ("text", "codec", "declared"),
    [
        (GERMAN, "utf-8", "UTF-8"),
        (GERMAN, "utf-8-sig", "utf8"),
        (GERMAN, "latin-1", "ISO-8859-1"),
        ("„Größe“ – 5 €", "cp1252", "iso-8859-1"),  # WHATWG: what is meant is windows-1252
        (RUSSIAN, "koi8-r", "KOI8-R"),
        (RUSSIAN, "cp1251", "windows-1251"),
        (RUSSIAN, "utf-7", "utf-7"),
        (JAPANESE, "iso-2022-jp", "ISO-2022-JP"),
        (JAPANESE, "shift_jis", "Shift_JIS"),
        (JAPANESE, "euc_jp", "euc-jp"),
        ("汉字编码测试", "gbk", "gb2312"),
        ("漢字編碼測試", "big5", "Big5"),
        ("한글 문서입니다", "euc_kr", "ks_c_5601-1987"),
        ("plain", "ascii", "US-ASCII"),
        (GERMAN, "utf-16", "utf-16"),
    ],
)
def test_what_is_declared_rightly_is_read_without_a_problem(text: str, codec: str, declared: str) -> None:
    found = decode(text.encode(codec), declared)
    assert (found.text, found.problem) == (text, False)


@pytest.mark.fault("C05")
@pytest.mark.parametrize(
    ("text", "codec", "declared"),
    [
        (GERMAN, "utf-8", None),  # RFC 2045 5.2: nothing declared is us-ascii
        (GERMAN, "utf-8", "us-ascii"),
        (GERMAN, "utf-8", "x-unknown"),
        (GERMAN, "cp1252", "utf-8"),
        (GERMAN, "cp1252", None),
        (RUSSIAN, "cp1251", None),
        (RUSSIAN, "cp1251", "no such charset"),
        (JAPANESE, "shift_jis", "unknown-8bit"),
        ("plain", "ascii", "x-unknown"),  # RFC 8621 4.1.4: an unknown charset is a problem by itself
    ],
)
def test_a_wrong_or_unknown_charset_is_seen_through_and_told(text: str, codec: str, declared: str | None) -> None:
    found = decode(text.encode(codec), declared)
    assert (found.text, found.problem) == (text, True)


@pytest.mark.fault("C05")
@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        (b"a\0b", "utf-8", "a\ufffdb"),
        (b"a\0b", None, "a\ufffdb"),
        ("Größe, Bücher, schön ".encode() * 3 + b"\xff", "utf-8", "Größe, Bücher, schön " * 3 + "\ufffd"),
        (b"x+2AA-y", "utf-7", "x\ufffdy"),  # half a surrogate pair
        (b"\xed\xa0\x80 abc", "x-none", None),
        (b"\x81\xff" * 10, "shift_jis", None),
        (b"\xff\xfe\x00", "utf-16", None),
        (b"\x1b$B\xff", "iso-2022-jp", None),
        (bytes(range(256)), "punycode", None),
        (bytes(range(256)), "unicode_escape", None),
        (bytes(range(256)), "base64", None),
    ],
)
def test_what_cannot_be_read_is_replaced(data: bytes, declared: str | None, text: str | None) -> None:
    found = decode(data, declared)
    assert found.problem
    assert "\0" not in found.text
    found.text.encode("utf-8")
    if text is not None:
        assert found.text == text


@pytest.mark.fault("C05")
def test_a_body_with_a_lying_charset_is_shown_told_and_kept() -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + GERMAN.encode("cp1252")
    parsed = read(raw)
    value = parsed.email.body_values["1"]
    assert (value.value, value.is_encoding_problem) == (GERMAN, True)
    assert parsed.blobs == {"1": GERMAN.encode("cp1252")}
    assert not parsed.whole
    assert encode(parsed.email).decode("utf-8")


def test_the_charset_of_a_part_is_as_declared_or_implied() -> None:
    # RFC 8621 4.1.4.
    part = read("Content-Type: text/plain; charset=KOI8-R\n\nx").email.body_structure
    assert part is not None
    assert part.charset == "KOI8-R"
    part = read("Content-Type: text/html\n\nx").email.body_structure
    assert part is not None
    assert part.charset == "us-ascii"
    part = read("Content-Type: image/png\n\nx").email.body_structure
    assert part is not None
    assert part.charset is None
