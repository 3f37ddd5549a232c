"""Values → command arguments, and mailbox names both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Permanent
from service.imap.encode import decode_mailbox, encode_mutf7, mailbox_argument, quoted, uid_set
from service.imap.grammar import parse_values

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@pytest.mark.fault("G07")
@given(st.text(max_size=40))
def test_a_quoted_string_says_what_was_meant_or_is_refused(text: str) -> None:
    if any(char in text for char in "\r\n\0"):
        with pytest.raises(Permanent, match="CR, LF and NUL") as refused:
            quoted(text, field="username")
        assert refused.value.where == "username"
    else:
        encoded = text.encode("utf-8", "surrogatepass")
        assert parse_values([quoted(text, field="x").encode("utf-8", "surrogatepass")], 0) == [encoded]


@given(names)
def test_a_mailbox_name_comes_back_from_the_wire(name: str) -> None:
    import unicodedata

    normal = unicodedata.normalize("NFC", name)
    assert decode_mailbox(encode_mutf7(normal).encode("ascii"), utf8=False) == normal


@pytest.mark.parametrize(
    ("name", "wire"),
    [("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"), ("A&B", b"A&-B"), ("Entwürfe", b"Entw&APw-rfe")],
)
def test_modified_utf7_is_that_of_rfc_3501(name: str, wire: bytes) -> None:
    assert encode_mutf7(name).encode() == wire
    assert decode_mailbox(wire, utf8=False) == name


def test_a_name_that_is_no_modified_utf7_is_what_it_is() -> None:
    assert decode_mailbox(b"R&D-team &Jjo!-x", utf8=False) == "R&D-team &Jjo!-x"


@pytest.mark.fault("A13")
@pytest.mark.parametrize("wire", [b"&" * 250_000, b"&AAAA" * 50_000, b"&A&-" * 60_000])
def test_a_long_name_is_read_once_and_not_once_for_each_of_its_shifts(wire: bytes) -> None:
    assert decode_mailbox(wire, utf8=False) == wire.decode().replace("&-", "&")


def test_a_name_in_utf8_is_taken_as_such() -> None:
    assert decode_mailbox("Entwürfe".encode(), utf8=False) == "Entwürfe"


def test_utf8_names_are_sent_as_they_are_once_enabled() -> None:
    assert mailbox_argument("Entwürfe", utf8=True) == '"Entwürfe"'
    assert mailbox_argument("Entwürfe", utf8=False) == '"Entw&APw-rfe"'


@given(st.sets(st.integers(1, 200)))
def test_a_uid_set_names_each_uid_and_no_other(uids: set[int]) -> None:
    found: set[int] = set()
    for part in uid_set(uids).split(",") if uids else []:
        first, _, last = part.partition(":")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == uids
