"""What a token endpoint is asked, and what its answer means. Pure.

Used by tokens.py. RFC 6749 sections 4.4, 5 and 6; RFC 7523 (JWT bearer) with RFC 7519 and RFC 7515; RFC 6750 2.1 for
what a token may look like; RFC 9110 10.2.3 for Retry-After.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from service.contract import hidden
from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Transient
from service.oauth.options import Grant, OAuthOptions

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Google takes an hour at most.
ASSERTION_LIFE_S: Final = 3600
# RFC 6749 5.1: where no lifetime is told it is known by other means; we know of none, and ask again soon.
UNTOLD_LIFE_S: Final = 600.0
# A token that a server takes for years is not what this is about; the clock of a peer may be wild.
LIFE_LIMIT_S: Final = 24 * 3600.0
# A token goes into one line of a command, and AUTH takes 12,288 octets (RFC 4954 4), in base64.
TOKEN_LIMIT_CHARS: Final = 8_000
SHOWN_CHARS: Final = 300
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")
_LATER: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
# RFC 6749 5.2, and what helps. A code that is not here is shown with its description.
_REMEDIES: Final[Mapping[str, str]] = {
    "invalid_grant": "the refresh token or the assertion is not taken (any more): give the consent anew and store what"
    " it gives; with jwt_bearer, look at this machine's clock and at who may be acted for",
    "invalid_client": "check client_id and client_secret; secrets expire",
    "unauthorized_client": "let the client use this grant and act for this user, with just this scope",
    "invalid_scope": "correct scope",
    "unsupported_grant_type": "correct grant or token_url",
    "invalid_request": "check the keys below oauth2",
    "interaction_required": "give the consent anew",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint said. Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """A token, for how long it is good, and the refresh token that came with it (empty without)."""

    access: str = field(repr=False)
    life_s: float
    refresh: str = field(repr=False)


class _Said(msgspec.Struct):
    """RFC 6749 5.1 and 5.2 in one; Google once gave expires_in as a string."""

    access_token: str = ""
    token_type: str = "Bearer"
    expires_in: float | str | None = None
    refresh_token: str | None = None
    error: object = ""
    error_description: object = ""


_SAID: Final = msgspec.json.Decoder(_Said)


def question(options: OAuthOptions, refresh_token: str, now: datetime) -> dict[str, str]:
    """The form that is posted."""
    match options.grant:
        case Grant.REFRESH_TOKEN:
            form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        case Grant.CLIENT_CREDENTIALS:
            form = {"grant_type": "client_credentials"}
        case Grant.JWT_BEARER:
            return {"grant_type": JWT_BEARER, "assertion": assertion(options, now)}
    # RFC 6749 2.3.1: in the body, as Google and Microsoft describe it.
    form["client_id"] = options.client_id
    if options.client_secret:
        form["client_secret"] = options.client_secret
    if options.scope:
        form["scope"] = options.scope
    return form


def assertion(options: OAuthOptions, now: datetime) -> str:
    """RFC 7523 section 3: who we are, for whom we act, signed."""
    if options.key is None:
        raise RuntimeError("jwt_bearer without a key")
    issued = int(now.timestamp())
    head = {"alg": "RS256", "typ": "JWT"} | ({"kid": options.key.id} if options.key.id else {})
    claims: dict[str, object] = {
        "iss": options.client_id,
        "sub": options.subject,
        "aud": options.token_url,
        "iat": issued,
        "exp": issued + ASSERTION_LIFE_S,
    }
    if options.scope:
        claims["scope"] = options.scope
    signed = f"{_base64url(msgspec.json.encode(head))}.{_base64url(msgspec.json.encode(claims))}"
    return f"{signed}.{_base64url(options.key.sign(signed.encode('ascii')))}"


def _base64url(data: bytes) -> str:
    # RFC 7515 section 2: without its padding.
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def granted(answer: Answer, options: OAuthOptions, secrets: tuple[str, ...], now: datetime) -> Granted:
    """The token in an answer. Raises AuthRefused, Permanent, Transient; none of them shows one of `secrets`."""
    try:
        said = _SAID.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = None
    if answer.status != 200 or said is None or not said.access_token:
        raise _refusal(answer, said, options, secrets, now)
    if said.token_type.lower() != "bearer":
        raise Permanent(
            "the token is of a kind that no mail server takes", where=options.where, remedy="check token_url"
        )
    if len(said.access_token) > TOKEN_LIMIT_CHARS or _TOKEN.fullmatch(said.access_token) is None:
        raise PeerError("what the endpoint gave is no bearer token", where=options.where)
    refresh = said.refresh_token or ""
    if refresh and (len(refresh) > TOKEN_LIMIT_CHARS or _UNPRINTABLE.search(refresh)):
        raise PeerError("what the endpoint gave is no refresh token", where=options.where)
    return Granted(said.access_token, _life_s(said.expires_in), refresh)


def _life_s(expires_in: float | str | None) -> float:
    try:
        told = float(expires_in or 0)
    except ValueError:
        told = 0.0
    return min(told, LIFE_LIMIT_S) if told > 0 else UNTOLD_LIFE_S


def _refusal(
    answer: Answer, said: _Said | None, options: OAuthOptions, secrets: tuple[str, ...], now: datetime
) -> MailbusError:
    where, status = options.where, answer.status
    code = said.error if said is not None and isinstance(said.error, str) else ""
    if status == 429 or status >= 500 or code in _LATER:
        pause_s = _retry_after_s(answer.headers.get("retry-after", ""), now)
        return Transient(f"the token endpoint gives nothing now: {status} {_shown(code, secrets)}".strip(),
                         where=where, retry_after_s=pause_s)  # fmt: skip
    if 300 <= status < 400:
        return Permanent(
            f"the token endpoint sends us elsewhere ({status}); a secret is not carried after that",
            where=where,
            remedy="write the address that it has now into token_url",
        )
    if code:
        described = said.error_description if said is not None and isinstance(said.error_description, str) else ""
        remedy = _REMEDIES.get(code, "check the keys below oauth2")
        return AuthRefused(
            f"the token endpoint refuses: {_shown(f'{code} {described}'.strip(), secrets)}",
            where=where,
            remedy=f"{remedy}; {options.remedy}" if options.remedy else remedy,
        )
    if status == 200:
        return PeerError("the token endpoint's answer has no token in it", where=where, remedy="check token_url")
    return Permanent(f"the token endpoint answers {status}", where=where, remedy="check token_url")


def _retry_after_s(text: str, now: datetime) -> float | None:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _shown(text: str, secrets: tuple[str, ...]) -> str:
    return hidden(_UNPRINTABLE.sub(" ", text), secrets)[:SHOWN_CHARS]
