"""What is said of a connection, without its credentials."""

import pytest

from service.contract import without_credentials


@pytest.mark.parametrize(
    ("said", "username", "password", "shown"),
    [
        ("Authentication of ada failed for hunter2", "ada", "hunter2", "Authentication of *** failed for ***"),
        ("535 5.7.8 Authentication failed", "u", "a", "535 5.7.8 Authentication failed"),
        ("no user <u>, nor u@x.example", "u", "pw", "no user <***>, nor ***@x.example"),
        ("user=ada@x.example;pass=xhunter2x", "ada@x.example", "hunter2", "user=***;pass=x***x"),
    ],
)
def test_credentials_are_hidden_and_words_that_have_their_letters_are_not(
    said: str, username: str, password: str, shown: str
) -> None:
    assert without_credentials(said, username, password) == shown
