"""Notices made to be slow to read: each of these took from seconds to years. The limit of a test's time tells."""

import pytest

from service.contract import Kind
from tests.meaning.mails import meaning_of, notice

SPACES = " " * 900


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "text",
    [
        f"x\ndelivered{SPACES}! a@b.example",
        f"x\nfailed recipient{SPACES}x{SPACES}a@b.example",
        f"x\nRCPT TO{SPACES}) a@b.example",
        f"x\nRCPT TO:{SPACES}<{SPACES}( {SPACES}) a@b.example",
        "<a@b.example>: 550 " + "bad" * 1300,
        "<a@b.example>: 550 " + "fail" * 1000,
        "\n".join(["unknown x@y.example " * 40] * 80),
    ],
)
def test_a_notice_of_hostile_lines_is_a_bounce(text: str) -> None:
    assert meaning_of(notice(text)).kind is Kind.BOUNCE


@pytest.mark.fault("C04")
def test_a_text_without_a_word_before_the_returned_mail_is_read() -> None:
    text = "a" * 60_000 + "\noriginal message follows\n\n"
    assert meaning_of(notice(text, header="X-Failed-Recipients: a@b.example\n")).kind is Kind.BOUNCE


@pytest.mark.fault("C04")
def test_styles_that_never_end_are_read() -> None:
    html = notice("<style" * 10_000, header="Content-Type: text/html\n")
    assert meaning_of(html).kind is Kind.BOUNCE


def test_the_words_after_a_style_are_read_and_those_in_it_are_not() -> None:
    html = "<style>a@b.example</style ><p>&lt;c@d.example&gt;: 550 5.1.1 no such user</p><script>e@f.example"
    (report,) = meaning_of(notice(html, header="Content-Type: text/html\n")).reports or ()
    assert report.recipient == "c@d.example"
