"""Authentication-Results → the verdicts of the account's own mail server. Pure, linear, never raises. RFC 8601.

Anybody may write such a field into a mail: only the one that the own server added counts. Where settings name the
server, it is the topmost field of that name. Otherwise it is the topmost field, if it bears the name by which the
server that stored the mail calls itself in the topmost Received field (or a parent domain of it): a server that writes
such fields removes those that come from outside under its own name (RFC 8601 5).
"""

import re
from collections.abc import Sequence
from typing import Final

from msgspec import UNSET

from service.contract import Authentication, EmailHeader

# Real ones have 200 to 1500 characters.
_CHARS: Final = 8192
_COMMENT: Final = re.compile(r"\([^()]*\)")
# RFC 8601 2.2: method [/version] = result; Microsoft leaves the server's name out.
_RESULT: Final = re.compile(r"(?:^|;)\s*(spf|dkim|dmarc|arc)(?:/[0-9]+)?\s*=\s*([a-z]{1,20})", re.IGNORECASE)
_SERVER: Final = re.compile(r"\s*([^\s;=]{1,255})(?:\s+[0-9]+)?\s*(?:;|$)")
_BY: Final = re.compile(r"(?:^|\s)by\s+([A-Za-z0-9.-]{1,255})")
# RFC 8601 2.7: the first result of a method counts, but for DKIM one signature that verifies is enough.
_PASS: Final = "pass"


def authentication(headers: Sequence[EmailHeader], server: str) -> Authentication | None:
    """`server`: the authserv-id that settings name, "" to learn it. None where nobody may be believed."""
    by = ""
    for field in headers:
        name = field.name.lower()
        if name == "received" and not by:
            found = _BY.search(field.value[:_CHARS])
            by = found[1].lower().rstrip(".") if found is not None else "-"
        elif name == "authentication-results":
            text = _without_comments(field.value[:_CHARS])
            named = _SERVER.match(text)
            said = named[1].lower().rstrip(".") if named is not None else ""
            if server:
                if said == server.lower():
                    return _verdicts(said, text)
                continue
            return _verdicts(said, text) if said and _is_own(said, by or _next_by(headers)) else None
    return None


def _next_by(headers: Sequence[EmailHeader]) -> str:
    """The name in the topmost Received field, where the verdict stands above it."""
    for field in headers:
        if field.name.lower() == "received":
            found = _BY.search(field.value[:_CHARS])
            return found[1].lower().rstrip(".") if found is not None else "-"
    return "-"


def _is_own(said: str, by: str) -> bool:
    """A parent domain has a dot: `com` is nobody's name."""
    return said == by or ("." in said and by.endswith(f".{said}"))


def _without_comments(text: str) -> str:
    """RFC 5322 3.2.2, nested ones too, from the inside; a few rounds are more than anybody writes."""
    for _ in range(4):
        if "(" not in text:
            break
        text = _COMMENT.sub(" ", text)
    return " ".join(text.split())


def _verdicts(server: str, text: str) -> Authentication | None:
    verdicts: dict[str, str] = {}
    for found in _RESULT.finditer(text):
        method, result = found[1].lower(), found[2].lower()
        if method not in verdicts or (method == "dkim" and result == _PASS):
            verdicts[method] = result
    if not verdicts:
        return None
    return Authentication(
        server=server,
        spf=verdicts.get("spf", UNSET),
        dkim=verdicts.get("dkim", UNSET),
        dmarc=verdicts.get("dmarc", UNSET),
        arc=verdicts.get("arc", UNSET),
    )
