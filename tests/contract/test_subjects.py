"""A mailbox's name as one subject token, injectively."""

import hashlib
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import Subjects, email_id, mailbox_token, place_of

LEGAL = re.compile(r"[^.*>\s\x00-\x20]+")
# RFC 3986 3.3, 3.4: path-absolute, and the query of a name that goes by its hash.
PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
URI_PATH = re.compile(rf"/{PCHAR}+(?:/{PCHAR}*)*(?:\?sha256=[0-9a-f]{{64}})?")
LONG = hashlib.sha256(b"x" * 201).hexdigest()


@given(st.text(max_size=300))
@pytest.mark.fault("G07")
def test_any_name_is_one_legal_token_within_its_limit(name: str) -> None:
    token = mailbox_token(name)
    assert LEGAL.fullmatch(token)
    assert len(token.encode()) <= 200


@given(st.text(max_size=40), st.text(max_size=40))
@pytest.mark.fault("A18")
def test_two_names_never_share_a_token(one: str, other: str) -> None:
    def same(name: str) -> str:
        normal = unicodedata.normalize("NFC", name)
        return "INBOX" if normal.isascii() and normal.upper() == "INBOX" else normal

    assert (mailbox_token(one) == mailbox_token(other)) == (same(one) == same(other))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("inbox", "INBOX"),
        ("\u0131nbox", "\u0131nbox"),
        ("a.b", "a%2Eb"),
        ("a%2Eb", "a%252Eb"),
        ("Sent Mail", "Sent%20Mail"),
        ("e\u0301", "é"),
        ("a/*/>", "a/%2A/%3E"),
    ],
)
def test_tokens_of_names(name: str, token: str) -> None:
    assert mailbox_token(name) == token


def test_a_long_name_goes_by_its_hash() -> None:
    assert mailbox_token("x" * 5000).startswith("%sha256-")


def test_the_fence_is_the_same_text_for_ever() -> None:
    assert Subjects("mail").mailbox_filter("support", "INBOX") == "mail.in.support.INBOX.*"


@given(st.text(max_size=20), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**16 - 1))
def test_an_email_id_finds_its_place(mailbox: str, uidvalidity: int, uid: int, turn: int) -> None:
    id = email_id(mailbox, uidvalidity, uid, turn)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,255}", id)
    place = place_of(id)
    assert place is not None
    assert (place.uidvalidity, place.uid, place.turn) == (uidvalidity, uid, turn)


@given(st.text(max_size=40))
def test_any_other_text_is_no_place(text: str) -> None:
    place = place_of(text)
    assert place is None or len(text) in {23, 25}


@pytest.mark.parametrize(
    ("mailbox", "source"),
    [
        ("INBOX", "/mail/a/INBOX"),
        ("Lists/a b", "/mail/a/Lists/a%20b"),
        ("Entwürfe", "/mail/a/Entw%C3%BCrfe"),
        ('50%#?"', "/mail/a/50%25%23%3F%22"),
        ("x" * 201, f"/mail/a/?sha256={LONG}"),
        # Names that somebody might choose to pass for it.
        (f"%sha256-{LONG}", f"/mail/a/%25sha256-{LONG}"),
        (f"?sha256={LONG}", f"/mail/a/%3Fsha256={LONG}"),
    ],
)
def test_a_source_is_a_uri_reference(mailbox: str, source: str) -> None:
    assert Subjects().source("a", mailbox) == source


@given(st.text(max_size=300))
def test_any_source_is_a_uri_reference(mailbox: str) -> None:
    assert URI_PATH.fullmatch(Subjects().source("a", mailbox))


@given(st.text(max_size=80), st.text(max_size=80))
def test_two_mailboxes_never_share_a_source(one: str, other: str) -> None:
    assert Subjects().source("a", one).isascii()
    same = mailbox_token(one) == mailbox_token(other)
    assert (Subjects().source("a", one) == Subjects().source("a", other)) == same
