"""Numbers in the place of UIDs, prints of mail, and keys of a maildrop: what POP3 beside IMAP is remembered by."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import NUMBERS_FROM, email_id, place_of
from service.ingest import learnt
from service.ingest.learnt import Keys
from service.ingest.marks import identity_in, packed_id, packed_mark, print_in, whole_mark, with_identity, with_print
from service.ingest.notes import Note, dump_note, load_note
from service.ingest.numbers import Numbers
from service.ingest.prints import print_of
from service.ingest.state import State, dump_state, load_state

HEADER = (
    b"Received: from a by b;\r\n\tMon, 1 Jun 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\nSubject: one\r\n two\r\n\r\n"
)
PRINTS = st.binary(min_size=6, max_size=6).filter(any).map(bytes.hex)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_an_id_of_a_number_is_told_from_one_of_a_uid(offset: int, uidvalidity: int) -> None:
    places = [place_of(email_id("INBOX", uidvalidity, name)) for name in (offset, NUMBERS_FROM + offset)]
    assert [(place.uidvalidity, place.uid) for place in places if place is not None] == [
        (uidvalidity, offset),
        (uidvalidity, NUMBERS_FROM + offset),
    ]


@given(st.dictionaries(st.integers(1, 100), st.tuples(PRINTS, st.booleans()), max_size=20))
def test_numbers_survive_a_snapshot(given: dict[int, tuple[str, bool]]) -> None:
    numbers = Numbers()
    for offset, (print, paired) in given.items():
        numbers.give(NUMBERS_FROM + offset, print)
        if paired:
            numbers.pair(NUMBERS_FROM + offset, offset)
    found = load_state(dump_state(State(numbers=numbers), "owner"), "owner")
    assert found is not None
    assert found.numbers.top == numbers.top
    assert sorted(found.numbers.waiting) == sorted(numbers.waiting)
    for offset, (print, paired) in given.items():
        number = NUMBERS_FROM + offset
        assert found.numbers.uid_of(number) == (offset if paired else 0)
        assert found.numbers.name_of(offset) == (number if paired else offset)
        assert bool(found.numbers.find(print, ())) == any(not p and one == print for one, p in given.values())


def test_a_number_is_never_given_again() -> None:
    numbers = Numbers()
    numbers.give(NUMBERS_FROM + 7, "aabbccddeeff")
    numbers.drop(NUMBERS_FROM + 7)
    assert not numbers
    assert Numbers.load(numbers.dump()).top == NUMBERS_FROM + 7


@pytest.mark.parametrize("data", [b"1", b"12345", bytes(4 + 15)])
def test_what_is_no_snapshot_of_numbers_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="number"):
        Numbers.load(data)


def test_a_note_says_which_number_has_its_uid_now() -> None:
    assert load_note(dump_note(5, "aa", ["$seen"], NUMBERS_FROM + 3)) == Note(
        5, "aa", frozenset(["$seen"]), NUMBERS_FROM + 3
    )
    assert load_note(dump_note(NUMBERS_FROM + 3, "aa")) == Note(NUMBERS_FROM + 3, "aa", frozenset())
    for text in ("5=3 -", "0=4294967299 -", f"{2 * NUMBERS_FROM} -", f"5={2 * NUMBERS_FROM} -", "5= -", "=5 -"):
        assert load_note(text) is None


@given(PRINTS, PRINTS, st.booleans())
def test_a_mark_keeps_what_stands_beside_its_print(mark: str, print: str, has_id: bool) -> None:
    whole = whole_mark(mark, "an id" if has_id else "")
    printed = with_print(whole, print)
    assert print_in(printed) == print
    assert (packed_mark(printed), packed_id(printed)) == (packed_mark(whole), packed_id(whole))
    assert not print_in(whole)
    identity = with_identity(mark, "ab" * 16)
    assert identity_in(identity) == identity_in(with_print(identity, print)) == bytes.fromhex("ab" * 16)


@pytest.mark.parametrize(
    "shown",
    [
        HEADER.replace(b"\r\n", b"\n"),
        HEADER.replace(b"\r\n\t", b" "),
        HEADER.replace(b"Message-ID:", b"MESSAGE-Id:  "),
        b"X-UIDL: 5\r\nStatus: RO\r\n" + HEADER,
        HEADER + b"another body\r\n",
    ],
)
def test_the_print_of_a_mail_is_the_same_however_a_server_shows_its_header(shown: bytes) -> None:
    assert print_of(shown, whole=True) == print_of(HEADER + b"body\r\n", whole=True) == print_of(HEADER, whole=False)


@pytest.mark.parametrize("change", [(b"<1@x>", b"<2@x>"), (b"one", b"1"), (b"10:00:00", b"10:00:01")])
def test_another_mail_has_another_print(change: tuple[bytes, bytes]) -> None:
    assert print_of(HEADER.replace(*change), whole=True) != print_of(HEADER, whole=True)


def test_where_the_header_says_too_little_the_first_lines_count() -> None:
    mails = [b"Subject: x\r\n\r\n" + b"line\r\n" * 9 + end for end in (b"10\r\n11\r\n", b"10\r\n12", b"9\r\n")]
    prints = [print_of(mail, whole=True) for mail in mails]
    assert prints[0] == prints[1] != prints[2]
    assert not print_of(mails[0], whole=False)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_have_a_print_or_none(data: bytes, whole: bool) -> None:
    assert len(print_of(data, whole=whole)) in {0, 12}


def test_keys_remember_what_left_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnt, "GONE_LIMIT", 3)
    keys = Keys(array("Q", [5, 1, 3])).then(array("Q", [3, 9])).then(array("Q", [9]))
    assert [key for key in range(10) if keys.has(key)] == [1, 3, 5, 9]
    keys = keys.then(array("Q", [2, 1]))
    found = Keys.load(keys.dump("one"), "one")
    assert found is not None
    assert [key for key in range(10) if found.has(key)] == [1, 2, 3, 5, 9]
    assert not found.then(array("Q", [4])).has(5)
    assert Keys.load(keys.dump("one")[:-1], "one") is None
    assert Keys.load(b"\x03" + keys.dump("one")[1:], "one") is None
    assert Keys.load(keys.dump("one"), "another") is None
    assert keys.dump("one") != keys.dump("another")
