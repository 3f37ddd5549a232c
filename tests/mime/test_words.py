"""RFC 2047: encoded words as senders write them."""

import unicodedata

import pytest

from service.mime.words import composed, decode_text, unfold


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("=?utf-8?q?Gr=C3=B6=C3=9Fe?=", "Größe"),
        ("=?UTF-8?B?R3LDtsOfZQ==?=", "Größe"),
        ("=?iso-8859-1?Q?a_b?=", "a b"),
        ("=?us-ascii*en?q?hi?=", "hi"),  # RFC 2231 5: with a language
        ("Re: =?utf-8?q?=C3=BC?= x", "Re: ü x"),
        # RFC 2047 6.2: white space between two of them is not shown, any other is.
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        ("=?utf-8?q?a?= =?iso-8859-1?q?=FC?=", "aü"),
        # Within a character: many senders cut there.
        ("=?utf-8?b?w4M=?= =?utf-8?q?=C3?= =?utf-8?q?=BC?=", "Ãü"),
        # RFC 2047 4.2 has it encoded.
        ("=?utf-8?Q?What's_new??=", "What's new?"),
        ("=?utf-8?Q?Who?_What?_=C3=BC?= x", "Who? What? ü x"),
        ("=?utf-8?Q?Really??= =?utf-8?Q?_Yes?=", "Really? Yes"),
        ("=?utf-8?q?cut? =?utf-8?q?whole?=", "=?utf-8?q?cut? whole"),
        ("=?utf-8?q?no_closing", "=?utf-8?q?no_closing"),
        ("=?utf-8?x?what?=", "=?utf-8?x?what?="),
        ("=?utf-8?q?with spaces?=", "with spaces"),
        # Folded within the word, which RFC 2047 2 forbids: the white space is the fold's.
        ("=?utf-8?q?Hello\r\n _there=21?=", "Hello there!"),
        ("=?utf-8?q?w=C3\n\t=BC?= =?utf-8?q?r\n de?=", "würde"),
        ("[tag]=?utf-8?q?=C3=BC?=", "[tag]ü"),
        ("=?utf-8?q??=", ""),
        ("=?utf-8?b?w7w?=", "ü"),  # without its padding
        ("=?utf-8?q?one=0D=0Atwo=0A?=", "one two"),
        # RFC 8621 4.1.2.2: control characters are dropped.
        ("=?utf-8?q?a=1B[31mb=07?= =?utf-8?b?DH8J?=c", "a[31mb\tc"),
        ("=?utf-8?q?=ZZ?=", "=ZZ"),
        ("plain", "plain"),
    ],
)
def test_encoded_words(raw: str, text: str) -> None:
    assert decode_text(raw, words=100) == text


@pytest.mark.fault("C05")
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("=?utf-8?q?=FCber_gr=FC=DFe?=", "über grüße"),  # it is windows-1252
        ("=?x-unknown?q?=C3=BC?=", "ü"),
        ("=?us-ascii?q?=C3=BC?=", "ü"),
        ("=?utf-8?q?a=00b?=", "a\ufffdb"),
        ("=?utf-7?q?+2AA-?=", "\ufffd"),  # half of a pair
    ],
)
def test_a_wrong_charset_gives_text(raw: str, text: str) -> None:
    assert decode_text(raw, words=100) == text


def test_text_is_in_normal_form_c() -> None:
    # RFC 8621 4.1.2.2.
    assert decode_text("=?utf-8?q?u=CC=88?=", words=9) == "ü"


@pytest.mark.fault("C04")
def test_long_runs_of_combining_marks_are_left_as_they_are() -> None:
    text = "a" + "\u0315\u0300" * 32_000
    assert composed(text) is text
    assert composed("e\u0301") == unicodedata.normalize("NFC", "e\u0301")


@pytest.mark.fault("C04")
def test_words_over_the_limit_stay_encoded() -> None:
    shown = decode_text("=?utf-8?q?a?= " * 5, words=2)
    assert shown == "aa =?utf-8?q?a?= =?utf-8?q?a?= =?utf-8?q?a?="


def test_unfolding_takes_the_line_break_and_leaves_the_space() -> None:
    # RFC 5322 2.2.3.
    assert unfold(" a\r\n  b\n\tc ") == "a  b\tc"
