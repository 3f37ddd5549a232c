"""An access token → what AUTHENTICATE (IMAP) and AUTH (POP3, SMTP) say with it; which mechanism of those offered. Pure.

Used by imap/connection.py, pop3/session.py and smtp/connect.py. RFC 7628 (OAUTHBEARER) with RFC 5801 (its GS2 header);
XOAUTH2 as Google describes it (developers.google.com/gmail/imap/xoauth2-protocol) and Microsoft follows.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from service.errors import Permanent

# Control A ends each pair of what is said: inside a value it would begin another.
_SEPARATOR: Final = "\x01"
_UNSAYABLE: Final = re.compile(r"[\x01\ud800-\udfff]")
_SHOWN_CHARS: Final = 300
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


class TokenSource(Protocol):
    """Where an account's access tokens come from. Both raise AuthRefused, Transient or Permanent."""

    def get(self) -> Awaitable[str]:
        """A token that is good for now."""

    def renew(self, refused: str) -> Awaitable[str]:
        """Another one in place of one that a server refused."""


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """Who logs in, with which token, where."""

    username: str
    token: str = field(repr=False)
    host: str
    port: int


def _oauthbearer(login: TokenLogin) -> str:
    # RFC 5801 section 4: = and , are written otherwise in an authorization identity.
    name = login.username.replace("=", "=3D").replace(",", "=2C")
    pairs = (f"host={login.host}", f"port={login.port}", f"auth=Bearer {login.token}")
    return f"n,a={name},{_SEPARATOR}{_SEPARATOR.join(pairs)}{_SEPARATOR}{_SEPARATOR}"


def _xoauth2(login: TokenLogin) -> str:
    return f"user={login.username}{_SEPARATOR}auth=Bearer {login.token}{_SEPARATOR}{_SEPARATOR}"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One way to present a token. `farewell`, in base64, answers the challenge that says what is wrong with it."""

    name: str
    message: Callable[[TokenLogin], str]
    farewell: str

    def initial(self, login: TokenLogin) -> str:
        """The first and only thing the client says, in base64. Raises Permanent where it cannot be said."""
        if _UNSAYABLE.search(login.username):
            raise Permanent("a control character in the username", where="username", remedy="correct the value")
        return b64encode(self.message(login).encode()).decode("ascii")


# The best first. RFC 7628 3.2.3: a challenge is answered with control A; XOAUTH2 wants an empty answer.
MECHANISMS: Final = (
    Mechanism("OAUTHBEARER", _oauthbearer, b64encode(_SEPARATOR.encode()).decode()),
    Mechanism("XOAUTH2", _xoauth2, ""),
)


def mechanism_for(offered: Iterable[str]) -> Mechanism | None:
    """The best mechanism that the server offers; None where it takes no tokens."""
    names = {name.upper() for name in offered}
    return next((mechanism for mechanism in MECHANISMS if mechanism.name in names), None)


def said_of_token(challenge: str) -> str:
    """What the server says is wrong with a token (RFC 7628 3.2.2), to be shown; empty where it does not say."""
    try:
        said = msgspec.json.decode(b64decode(challenge, validate=True), type=dict[str, object])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return ""
    told = [f"{key} {said[key]}" for key in ("status", "scope", "error_description") if said.get(key)]
    return _UNPRINTABLE.sub(" ", ", ".join(told))[:_SHOWN_CHARS]


def sasl_login(username: str, password: str) -> list[str]:
    """What is said to the two challenges of LOGIN, in base64: no RFC has it, draft-murchison-sasl-login-00 does."""
    return [b64encode(word.encode()).decode("ascii") for word in (username, password)]


def sasl_plain(username: str, password: str) -> str:
    """RFC 4616 in base64."""
    return b64encode(f"\0{username}\0{password}".encode()).decode("ascii")
