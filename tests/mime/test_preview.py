"""A mail's first words. RFC 8621 4.1.4."""

import pytest

from service.mime.preview import preview_of_html, preview_of_text
from tests.mime.mails import email_of, multipart


def test_white_space_is_one_space() -> None:
    assert preview_of_text("  Hello\r\n\r\n\tworld \n", most=256) == "Hello world"


def test_it_has_at_most_256_characters() -> None:
    assert len(email_of("\n" + "word " * 200).preview) <= 256
    assert email_of("\n" + "x" * 1000).preview == "x" * 256


def test_what_newsletters_pad_with_is_left_out() -> None:
    assert preview_of_text("Hi\u200b\u200c\u00ad\u034f there", most=256) == "Hi there"


def test_html_is_its_text() -> None:
    html = "<html><head><title>t</title><style>p{}</style></head><body><script>x</script><p>Hello<br>world &amp; you"
    assert preview_of_html(html, most=256, look_at=16_384) == "Hello world & you"


def test_text_is_preferred_and_html_taken_where_there_is_none() -> None:
    html = "Content-Type: text/html\n\n<p>from HTML"
    assert email_of(multipart("b", "\nfrom text", html, kind="alternative")).preview == "from text"
    assert email_of(multipart("b", "\n \n", html, kind="alternative")).preview == "from HTML"
    assert email_of(html).preview == "from HTML"


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "html", ["<div>" * 100_000, "<" * 500_000, "<b><i><a>" * 100_000, "<!--" * 100_000, "\0" * 9999]
)
def test_of_html_only_the_beginning_is_looked_at(html: str) -> None:
    # All of it would take minutes: the time limit of the test is the proof.
    assert len(preview_of_html(html, most=256, look_at=16_384)) <= 256


def test_no_words_no_preview() -> None:
    assert email_of("Content-Type: image/png\n\nx").preview == ""
    assert email_of("\n").preview == ""
