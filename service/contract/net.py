"""Words that settings, IMAP and SMTP share about a connection."""

import base64
from collections.abc import Iterable
from enum import StrEnum


class Security(StrEnum):
    """How a connection is protected (RFC 8314). `none` only where it is written out."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


def credentials(username: str, password: str) -> list[str]:
    """What a server may repeat of a login: the words as they are, and as AUTH sends them. `password`: or the token."""
    plain = [password, username]
    sent = [f"\0{username}\0{password}", f"{username}\0{username}\0{password}", *plain]
    encoded = [base64.b64encode(word.encode("utf-8", "surrogateescape")).decode() for word in sent if word]
    return [word for word in (*plain, *encoded, *(one.rstrip("=") for one in encoded)) if word]


def without_credentials(text: str, username: str, password: str) -> str:
    """What a server said, without the credentials that it may repeat."""
    return hidden(text, credentials(username, password))


def hidden(text: str, words: Iterable[str]) -> str:
    """A text without these words, the longest first."""
    for word in sorted(set(words), key=len, reverse=True):
        if word:
            text = text.replace(word, "***")
    return text
