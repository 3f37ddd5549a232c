"""Address fields: RFC 5322 3.4 and 4.4, and what people type."""

import pytest

from service.mime.addresses import parse_addresses
from tests.mime.mails import LIMITS, email_of, read


def pairs(raw: str, most: int = 1000) -> list[tuple[str | None, str]]:
    return [(address.name, address.email) for address in parse_addresses(raw, most=most, words=100).list]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a@example.org", [(None, "a@example.org")]),
        ("<a@example.org>", [(None, "a@example.org")]),
        ("Ann <a@example.org>, Bob <b@example.org>", [("Ann", "a@example.org"), ("Bob", "b@example.org")]),
        ('"Doe, Jane" <j@example.org>', [("Doe, Jane", "j@example.org")]),
        (r'"A \"B\" C" <a@example.org>', [('A "B" C', "a@example.org")]),
        (r'"back\\slash\\" <a@example.org>', [("back\\slash\\", "a@example.org")]),
        ('"a@b.example" <c@example.org>', [("a@b.example", "c@example.org")]),
        ("Ann\r\n B  <a@example.org>", [("Ann B", "a@example.org")]),
        # Groups are flattened; an empty one has nobody in it.
        ("Team: a@example.org, Bob <b@example.org>;", [(None, "a@example.org"), ("Bob", "b@example.org")]),
        ("undisclosed-recipients:;", []),
        (
            "A: a@x.example;, B: b@x.example;, c@x.example",
            [(None, "a@x.example"), (None, "b@x.example"), (None, "c@x.example")],
        ),
        # RFC 8621 4.1.2.3: a comment is the name where there is no other.
        ("a@example.org (Ann)", [("Ann", "a@example.org")]),
        (r"a@example.org (A \) B)", [("A ) B", "a@example.org")]),
        (r"Pete(A nice \) chap) <pete(his account)@silly.test(his host)>", [("Pete", "pete@silly.test")]),
        # Local parts and domains that are not dot-atoms.
        ('"with space"@example.org', [(None, '"with space"@example.org')]),
        ('"x" <"quoted local"@example.org>', [("x", '"quoted local"@example.org')]),
        ('"x, y" <"a  b" . c @ example.org>', [("x, y", '"a  b".c@example.org')]),
        ("a@[192.0.2.1]", [(None, "a@[192.0.2.1]")]),
        ("Ann <@r1.example,@r2.example:a@example.org>", [("Ann", "a@example.org")]),
        ("a . b @ example . org", [(None, "a.b@example.org")]),
        # RFC 6532.
        ("Jörg <jörg@exämple.org>", [("Jörg", "jörg@exämple.org")]),
        # Encoded words, their commas included.
        ("=?utf-8?q?J=C3=B6rg=2C_M?= <j@example.org>", [("Jörg, M", "j@example.org")]),
        ("=?utf-8?q?Who,_me??= <j@example.org>", [("Who, me?", "j@example.org")]),
        ('"=?utf-8?q?J=C3=B6rg?=" <j@example.org>', [("Jörg", "j@example.org")]),
        ("=?utf-8?b?SsO2cmcgPGpAZXhhbXBsZS5vcmc+?=", [("Jörg", "j@example.org")]),  # the whole field
        ("a@example.org (=?utf-8?q?J=C3=B6rg?=)", [("Jörg", "a@example.org")]),
    ],
)
def test_addresses(raw: str, expected: list[tuple[str | None, str]]) -> None:
    assert pairs(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("a@example.org,", [(None, "a@example.org")]),
        ("a@example.org; b@example.org", [(None, "a@example.org"), (None, "b@example.org")]),
        ("Ann <a@example.org> Bob <b@example.org>", [("Ann", "a@example.org"), ("Bob", "b@example.org")]),
        ("a@example.org b@example.org", [(None, "a@example.org"), (None, "b@example.org")]),
        ("Ann B a@example.org", [("Ann B", "a@example.org")]),
        ('"never closed <a@example.org>, b@example.org', [("never closed", "a@example.org"), (None, "b@example.org")]),
        ("<mailto:a@example.org>", [(None, "mailto:a@example.org")]),
        ("just a name", [(None, "just a name")]),
        ("<>", []),
        ("Ann <>", [("Ann", "")]),
        ("((((", []),
    ],
)
def test_what_is_no_address_list_loses_nobody(raw: str, expected: list[tuple[str | None, str]]) -> None:
    assert pairs(raw) == expected


def test_an_empty_field_is_a_list_and_a_missing_one_is_null() -> None:
    # RFC 8621 4.1.3: null only where there is no such field.
    email = email_of("To:\nCc: undisclosed-recipients:;\n\n")
    assert (email.to, email.cc, email.bcc) == ([], [], None)


@pytest.mark.fault("C08")
def test_from_may_be_missing_or_there_ten_times() -> None:
    assert email_of("To: a@example.org\n\n").from_ is None
    email = email_of("".join(f"From: {number}@example.org\n" for number in range(10)) + "\n")
    assert [address.email for address in email.from_ or []] == ["9@example.org"]


@pytest.mark.fault("C03")
def test_50000_recipients_are_cut_and_named() -> None:
    parsed = read("To: " + ",\n ".join(f"r{number}@example.org" for number in range(50_000)) + "\n\nhi")
    to = parsed.email.to or []
    assert to[0].email == "r0@example.org"
    assert len(to) <= LIMITS.recipients
    assert all(address.email.endswith("@example.org") for address in to)
    assert "recipients" in parsed.truncated


def test_the_limit_is_told() -> None:
    found = parse_addresses("a@x, b@x, c@x", most=2, words=1)
    assert (len(found.list), found.cut) == (2, True)
    found = parse_addresses("g: a@x, b@x, c@x;", most=2, words=1)
    assert (len(found.list), found.cut) == (2, True)
    assert not parse_addresses("a@x, b@x", most=2, words=1).cut
