"""Text to work with: of HTML and flowed lines, what is new in it, HTML that may be shown; only where asked for."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from service.contract import Extension, Extra
from service.mime import MimeLimits, language_is_there, parse
from service.mime.flowed import unflowed
from service.mime.language import language_of
from service.mime.plain import text_of_html
from service.mime.reply import newest_reply
from service.mime.safe import safe_html
from tests.mime.mails import mail, multipart

ALL = tuple(Extra)


def extras(text: str, *wanted: Extra, inline_limit: int = 256 * 1024) -> Extension:
    parsed = parse(mail(text), received_at=None, limits=MimeLimits(), inline_limit=inline_limit, extras=wanted)
    return parsed.email.mailbus


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One<br>two &amp; three</p><p>four", "One\ntwo & three\n\nfour"),
        ("a\n   b<b> c</b>d", "a b cd"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("<ul><li>a<li>b</ul>c", "- a\n- b\nc"),
        ("<table><tr><td>1<td>2<tr><td>3</table>", "1 2\n3"),
        ("<blockquote>old<p>older</blockquote>new", "> old\n>\n> older\nnew"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("<style>p{}</style><script>x<y</script><title>t</title>a<!-- b -->", "a"),
        ('<div style="display: none">padding</div><p hidden>x</p>a<img alt="logo">', "alogo"),
        ("a &lt;b&gt; &#8364; &nope;", "a <b> € &nope;"),
        ("1 < 2 and <3", "1 < 2 and <3"),
        ('<a href="x>y">z</a>', "z"),
        ("a\u200b\u00adb", "ab"),
        ("a<tag that never ends", "a"),
        ("", ""),
    ],
)
def test_html_is_the_text_that_one_sees(html: str, text: str) -> None:
    assert text_of_html(html, most=1000) == text


def test_text_of_html_ends_at_its_limit() -> None:
    assert len(text_of_html("<p>word" * 10_000, most=500)) <= 500


@pytest.mark.parametrize(
    ("lines", "delete_space", "text"),
    [
        ("one \ntwo\nthree", False, "one two\nthree"),
        ("one \ntwo", True, "onetwo"),
        # RFC 3676 4.4: stuffed lines; 4.5: quotes of two depths never flow together.
        (" From me\n >no quote", False, "From me\n>no quote"),
        ("> one \n> two\n>> three \nfour", False, "> one two\n>> three \nfour"),
        # RFC 3676 4.3: the line before a signature is fixed.
        ("text \n-- \nname ", False, "text \n-- \nname "),
        ("", False, ""),
    ],
)
def test_flowed_lines_are_paragraphs(lines: str, delete_space: bool, text: str) -> None:
    assert unflowed(lines, delete_space=delete_space) == text


NEW = "Thank you!\n\nAda"


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "\n-- \nAda Lovelace\nAnalyst",
        "\n\nOn Mon, 5 May 2025 at 10:00, Bob <bob@example.org> wrote:\n> old\n> older",
        "\n\nOn Mon, 5 May 2025 at 10:00, Bob\n<bob@example.org> wrote:\n\n> old",
        "\n\nAm 05.05.25 um 10:00 schrieb Bob:\n> alt",
        "\n\nLe lun. 5 mai 2025 à 10:00, Bob <bob@example.org> a écrit :\n\n> vieux",
        "\n\n2025年5月5日(月) 10:00 Bob <bob@example.org>:\n> old",
        "\n\n-----Original Message-----\nFrom: Bob\n\nold",
        "\n\n________\nVon: Bob <bob@example.org>\nGesendet: Montag\nAn: Ada\nBetreff: x\n\nalt",
        "\n\nFrom: Bob\nSent: Monday\nTo: Ada\nSubject: x\n\nold",
        "\n\nFrom: Bob\nSent: Monday\nTo: " + "Ada Lovelace;\n" * 20 + "Subject: x\n\nold",
        "\n\nFrom: Bob <bob@example.org>\nDate: Monday\nTo: Ada\n\nold",
        "\n\nBegin forwarded message:\n\nold",
        "\n\nSent from my phone\n\n> On 5 May 2025, Bob wrote:\n> old",
        "\n\nBob wrote:\n> old",
        "\n\nпн, 5 мая 2025 г. в 10:00, Bob <bob@example.org>:\n\n> old",
        "\n\nBob <bob@example.org> ezt írta (időpont: 2025. máj. 5., H, 10:00):\n\n> old",
        "\n\nΣτις Δευ 5 Μαΐ 2025 στις 10:00, ο χρήστης Bob <bob@example.org> έγραψε:\n\n> old",
        "\n\n---- On Mon, 05 May 2025 10:00:00 +0200 Bob <bob@example.org> wrote ---\n\nold",
        "\n\nGesendet: Montag, 05. Mai 2025 um 10:00 Uhr\nVon: Bob <bob@example.org>\nAn: Ada\nBetreff: x\nalt",
    ],
)
def test_the_newest_reply_has_neither_quotes_nor_signature(rest: str) -> None:
    assert newest_reply(NEW + rest) == NEW


def test_answers_between_quotes_are_all_new() -> None:
    assert newest_reply("Bob wrote:\n> one?\n\nYes.\n\n> two?\n\nNo.") == "Yes.\n\n\nNo."


@pytest.mark.parametrize(
    "text",
    [
        "From: Berlin\nTo: Paris\nDate: 3 Dec 10:15\n\nWho comes along?",
        "From: Berlin\nTo: Paris\nDate: 3 Dec 10:15\n\nWho comes along?" + "\n" * 9 + "Subject: travels",
        "De: 1 de enero\nA: 3 de enero\nPara: dos\n\nGracias",
        "He wrote:\n\nI came.",
        "From: here\nto there",
        "Note:\n- one\n- two",
        "a -- b",
        "In 2024 he wrote:\nI came.",
    ],
)
def test_what_only_looks_like_a_quote_stays(text: str) -> None:
    assert newest_reply(text) == text


@pytest.mark.fault("C04")
def test_a_reply_below_many_empty_lines_is_found() -> None:
    assert newest_reply("\n" * 200_000 + "Yes.") == "Yes."


def test_where_all_is_quoted_nothing_is_new() -> None:
    assert newest_reply("> old\n> older") == ""


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        '<img src="https://track.example.com/1.gif">',
        '<p onclick="x()" style="background: url(https://track.example.com/)">',
        '<a href="javascript:alert(1)">x</a>',
        '<link rel="stylesheet" href="https://track.example.com/a.css">',
        '<iframe src="https://track.example.com"></iframe>',
        '<form action="https://track.example.com"><input name="a"></form>',
        "<svg><script>alert(1)</script></svg>",
        '<video src="https://track.example.com/a"></video>',
        '<table background="https://track.example.com/a">',
        "<style>@import 'https://track.example.com'</style>",
        "<<script>script>alert(1)<</script>/script>",
        '<p title="--><img src=https://track.example.com/ onerror=alert(1)>">',
        '<p style="font-family: url(https://track.example.com/); border: 1px url(https://track.example.com/)">',
        r'<p style="font: \75rl(https://track.example.com/)">',
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
        '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
        '<img srcset="https://track.example.com/ 1x" src="data:image/svg+xml;base64,PHN2Zz4=">',
    ],
)
def test_safe_html_runs_nothing_and_loads_nothing(html: str) -> None:
    # What is left as words cannot run: markup is what counts.
    shown = safe_html(f"<p>before</p>{html}<p>after</p>")
    assert "<p>before</p>" in shown
    for bad in (
        "<script",
        "<img src=",
        "onclick",
        "javascript:",
        "<link",
        "<iframe",
        "<form",
        "url(",
        "<video",
        "<svg",
    ):
        assert bad not in shown
    assert "background=" not in shown


def test_safe_html_keeps_looks_links_and_the_mails_own_images() -> None:
    style = "color: rgb(1, 2, 3); margin-top: calc(1px); font-variant: x; word-break: y"
    html = f'<p style="{style}">a<b>b</b><img src="cid:1" alt="x"><a href="https://example.com">c</a>'
    shown = safe_html(html)
    for good in (
        "color:rgb(1, 2, 3)",
        "margin-top:calc(1px)",
        "font-variant:x",
        "word-break:y",
        "<b>b</b>",
        'src="cid:1"',
        'href="https://example.com"',
        "noopener",
    ):
        assert good in shown


DEEP = [
    "<div>",
    "<b><i><a>",
    "<p><b id=1>",
    "<!--",
    "<",
    "<a x='",
    '<a x="',
    "&",
    "<blockquote>",
    "</",
    "\0",
    "<script>",
]


@pytest.mark.fault("C04")
@pytest.mark.parametrize("piece", DEEP)
def test_hostile_html_costs_what_its_length_costs(piece: str) -> None:
    # A tree parser alone takes minutes for the first of these: the time limit of the test is the proof.
    html = piece * (MimeLimits().extra_chars // len(piece) // 4)
    text_of_html(html, most=100_000)
    safe_html(html)


@given(st.text(alphabet="<>/!-ab \"'=&;\n", max_size=200))
def test_any_html_gives_text_and_safe_html(html: str) -> None:
    text_of_html(html, most=1000)
    assert "<script" not in safe_html(html)


@given(st.text(alphabet=">- \nab:@On wrote", max_size=200), st.booleans())
def test_any_lines_flow_and_have_a_newest_reply(text: str, delete_space: bool) -> None:
    flowed = unflowed(text, delete_space=delete_space)
    assert set(newest_reply(text).split("\n")) <= set(text.split("\n")) | {""}
    assert len(flowed) <= len(text) + text.count("\n") + 200


def test_a_mail_has_what_is_asked_for_and_nothing_else() -> None:
    html = "Content-Type: text/html\n\n<p>Hello<script>x</script></p><blockquote>old</blockquote>\n"
    assert extras(html) == Extension()
    found = extras(html, *ALL)
    assert (found.text, found.reply) == ("Hello\n\n> old", "Hello")
    assert isinstance(found.html, str)
    assert found.html.startswith("<p>Hello</p>")


def test_a_plain_text_needs_no_text_of_its_own() -> None:
    found = extras("Content-Type: text/plain\n\nHello\n\n> old\n", *ALL)
    assert found == Extension(reply="Hello")


def test_a_flowed_text_is_given_as_paragraphs() -> None:
    found = extras("Content-Type: text/plain; format=flowed; delsp=yes\n\nHel \nlo\n\n> o \n> ld\n", *ALL)
    assert (found.text, found.reply) == ("Hello\n\n> old\n", "Hello")


def test_the_text_part_is_preferred() -> None:
    text, html = "Content-Type: text/plain\n\nHello\n", "Content-Type: text/html\n\n<p>Bye"
    found = extras(multipart("b", text, html, kind="alternative"), *ALL)
    assert found == Extension(reply="Hello", html="<p>Bye</p>")


def test_extras_of_a_body_that_is_a_blob_are_made_too() -> None:
    found = extras("Content-Type: text/html\n\n<p>Hello" + "<i></i>" * 2000, Extra.TEXT, inline_limit=0)
    assert found.text == "Hello"


def test_extras_that_do_not_fit_are_left_out_and_said() -> None:
    found = extras("Content-Type: text/html\n\n" + "<p>word" * 20_000, *ALL, inline_limit=0)
    assert found.truncated is not None
    assert "extras" in (found.truncated or [])


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        ("Content-Type: text/plain; charset=utf-8\n\nVielen Dank, das passt mir gut.\n", "de"),
        ("Content-Type: text/html\n\n<p>Please send me the invoice again.</p>\n", "en"),
        # The answer's, not that of what it answers.
        ("\n\nMerci, cela me convient tout à fait.\n\n> Vielen Dank, das passt mir gut.\n", "fr"),
        ("\n\nok\n", None),
        ("\n\n123 https://example.org\n", None),
        ("Content-Type: image/png\n\nx", None),
    ],
)
def test_the_language_is_the_replys_where_it_is_sure(body: str, tag: str | None) -> None:
    found = extras(body if body.startswith("C") else f"Content-Type: text/plain; charset=utf-8{body}", Extra.LANGUAGE)
    assert (None if found.language is UNSET else found.language) == tag
    assert found.text is UNSET
    assert found.reply is UNSET


def test_without_the_library_there_is_no_language_and_asking_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not language_is_there()
    assert extras("Content-Type: text/plain\n\nThank you very much for your help.\n", Extra.LANGUAGE).language is UNSET


def test_no_more_of_a_text_is_looked_at_than_a_few_pages() -> None:
    german, english = "Das ist ein langer deutscher Text. " * 200, "And this is an English one. " * 2000
    assert language_of(german + english) == "de"
