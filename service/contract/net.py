"""Words that settings, IMAP and SMTP share about a connection."""

import base64
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

# A word of this length is hidden within others too.
WITHIN_CHARS: Final = 4


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
    """A text without these words, the longest first; a short one only where it stands by itself."""
    for word in sorted(set(words), key=len, reverse=True):
        if len(word) >= WITHIN_CHARS:
            text = text.replace(word, "***")
        elif word:
            # Of a user called "u" all else that a server says would be stars.
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "***", text)
    return text
