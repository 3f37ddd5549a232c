"""What is said with a token, and what a server says of it."""

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Permanent
from service.login import TokenLogin, mechanism_for, said_of_token


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["PLAIN", "XOAUTH2", "OAUTHBEARER"], "OAUTHBEARER"),
        (["oauthbearer"], "OAUTHBEARER"),
        (["XOAUTH2", "LOGIN"], "XOAUTH2"),
        (["PLAIN"], None),
        ([], None),
    ],
)
def test_the_best_of_what_is_offered_is_taken(offered: list[str], chosen: str | None) -> None:
    found = mechanism_for(offered)
    assert (found.name if found else None) == chosen


def test_the_messages_are_those_of_the_documents() -> None:
    # RFC 7628 4.1; developers.google.com/gmail/imap/xoauth2-protocol.
    bearer, xoauth2 = mechanism_for(["OAUTHBEARER"]), mechanism_for(["XOAUTH2"])
    assert bearer is not None
    assert xoauth2 is not None
    login = TokenLogin("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "server.example.com", 143)
    assert bearer.initial(login) == (
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52"
        "YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    google = TokenLogin("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg", "x", 1)
    assert xoauth2.initial(google) == (
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
        "Q2cBAQ=="
    )
    assert "vF9" not in repr(login)


@pytest.mark.fault("G07")
@pytest.mark.parametrize("name", ["OAUTHBEARER", "XOAUTH2"])
@given(username=st.text())
def test_a_username_never_says_more_than_who(name: str, username: str) -> None:
    found = mechanism_for([name])
    assert found is not None
    login = TokenLogin(username, "token", "host", 1)
    if any(char == "\x01" or "\ud800" <= char <= "\udfff" for char in username):
        with pytest.raises(Permanent):
            found.initial(login)
        return
    said = b64decode(found.initial(login)).decode()
    head, *pairs = said.split("\x01")
    assert pairs[-3:] == ["auth=Bearer token", "", ""]
    if name == "OAUTHBEARER":
        assert head.startswith("n,a=")
        assert head.removeprefix("n,a=").index(",") == len(head) - len("n,a=") - 1
        assert len(pairs) == 5


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        (
            b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}',
            "status 400, scope https://mail.google.com/",
        ),
        (b'{"status":"invalid_token"}', "status invalid_token"),
        (b'{"status":"a\\r\\nb"}', "status a b"),
        (b"[]", ""),
        (b"nonsense", ""),
        (b"", ""),
    ],
)
def test_what_a_server_says_of_a_token_is_shown(challenge: bytes, said: str) -> None:
    assert said_of_token(b64encode(challenge).decode()) == said


@given(st.text())
def test_any_challenge_is_taken(challenge: str) -> None:
    assert len(said_of_token(challenge)) <= 300
