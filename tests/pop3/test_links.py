"""Unique ids that are made of IMAP's numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pop3 import linked_uid


@pytest.mark.parametrize(
    ("uidl", "uidvalidity", "uid"),
    [
        (b"000001f5692f1c3a", 0x692F1C3A, 0x1F5),  # Dovecot
        (b"1764172858.501", 1764172858, 501),  # Cyrus
        (b"UID501-1764172858", 1764172858, 501),  # Courier
        (b"UID2-1795724283", 1795724283, 2),  # Courier 1.0.16, as it said
        (b"000001f5692f1c3a", 7, 0),
        (b"00000000692f1c3a", 0x692F1C3A, 0),
        (b"1764172858.9999999999", 1764172858, 0),
        (b"GmailId19abcdef01234567", 7, 0),
        (b"", 7, 0),
    ],
)
def test_a_link_is_a_uid_where_its_uidvalidity_is_the_mailboxs(uidl: bytes, uidvalidity: int, uid: int) -> None:
    assert linked_uid(uidl, uidvalidity) == uid


@given(st.binary(max_size=40), st.integers(1, 2**32 - 1))
def test_any_id_is_a_uid_or_none(uidl: bytes, uidvalidity: int) -> None:
    assert 0 <= linked_uid(uidl, uidvalidity) < 2**32
