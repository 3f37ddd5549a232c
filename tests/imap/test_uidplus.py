"""UID sets and what COPYUID says: read as meant, refused where they lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PeerError
from service.imap.encode import uid_set
from service.imap.roles import roles
from service.imap.session import ListedMailbox
from service.imap.uidplus import Moved, appended, moved, runs, runs_of


@given(st.sets(st.integers(1, 300), min_size=1))
def test_a_set_comes_back_from_the_wire(uids: set[int]) -> None:
    assert [uid for run in runs(uid_set(uids)) for uid in run] == sorted(uids)
    assert [uid for run in runs_of(sorted(uids)) for uid in run] == sorted(uids)


def test_a_set_of_four_thousand_million_costs_nothing() -> None:
    (run,) = runs("1:4294967295")
    assert len(run) == 4294967295


def test_copyuid_pairs_old_and_new_in_their_order() -> None:
    assert moved("38505 304,319:320 3956:3958", 500) == Moved(38505, {304: 3956, 319: 3957, 320: 3958})
    assert appended("38505 3955") == Moved(38505, {0: 3955})


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "1 2",
        "1 1:3 1:2",
        "1 1:1000000 1:1000000",
        "x 1 1",
        "1 0 1",
        "1 1,, 1",
        "1 1:4294967296 1",
        "1 * 1",
        "1 ١ 1",
    ],
)
def test_copyuid_that_lies_is_refused(argument: str) -> None:
    with pytest.raises(PeerError):
        moved(argument, 500)


@given(st.text(max_size=30))
def test_any_text_is_a_set_or_refused(text: str) -> None:
    try:
        found = runs(text)
    except PeerError:
        return
    assert all(len(run) for run in found)


def listed(name: str, *attributes: str, delimiter: str = "/") -> ListedMailbox:
    return ListedMailbox(name, delimiter, frozenset(attributes))


def test_roles_are_what_the_server_says() -> None:
    found = roles(
        [listed("INBOX"), listed("Papierkorb", r"\trash"), listed("Trash"), listed("Two", r"\trash", r"\sent")]
    )
    assert found == {"INBOX": "inbox", "Papierkorb": "trash", "Two": "sent"}


def test_without_roles_usual_names_will_do() -> None:
    found = roles(
        [
            listed("INBOX", delimiter="."),
            listed("INBOX.Trash", delimiter="."),
            listed("INBOX.Spam", r"\noselect", delimiter="."),
            listed("Sent Items", delimiter="."),
            listed("Old.Trash", delimiter="."),
        ]
    )
    assert found == {"INBOX": "inbox", "INBOX.Trash": "trash", "Sent Items": "sent"}
