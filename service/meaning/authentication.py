"""Authentication-Results → the verdicts of the account's own mail server. Pure, linear, never raises. RFC 8601.

Anybody may write such a field into a mail: only what the own server added counts. Where settings name the server, it
conforms to RFC 8601 5, which has it remove what comes from outside under its name: the topmost field of that name
counts, and those that stand with it, as each of its filters writes one. Otherwise nobody vouches that it writes any:
then a field counts that stands above the topmost Received field, where no sender can put one (RFC 5321 4.4: each
server adds its own on top), and bears the name by which that field has the server, or a parent domain of it.
"""

import re
from collections.abc import Sequence
from typing import Final

from msgspec import UNSET

from service.contract import Authentication, EmailHeader

# Real ones have 200 to 1500 characters.
_CHARS: Final = 8192
# RFC 5322 3.2.1, 3.2.2 and 3.2.4: what a quote or a comment may begin, end or hide.
_TOKEN: Final = re.compile(r'[^"()\\]++|\\.|["()\\]', re.DOTALL)
# RFC 8601 2.2: method [/version] = result.
_RESULT: Final = re.compile(r"\s*(spf|dkim|dmarc|arc)(?:\s*/\s*[0-9]+)?\s*=\s*([a-z]{1,20})\b", re.IGNORECASE)
_SERVER: Final = re.compile(r"\s*([^\s;=]{1,255})(?:\s+[0-9]+)?\s*\Z")
_BY: Final = re.compile(r"(?:^|\s)by\s+([A-Za-z0-9.-]{1,255})")
# RFC 8601 2.7: the first result of a method counts, but for DKIM one signature that verifies is enough.
_PASS: Final = "pass"


def authentication(headers: Sequence[EmailHeader], server: str) -> Authentication | None:
    """`server`: the authserv-id that settings name, "" without one. None where nobody may be believed."""
    above: list[str] = []
    found: list[str] = []
    for field in headers:
        name = field.name.lower()
        if name == "received":
            if not server:
                by = _BY.search(field.value[:_CHARS])
                return _learnt(above, "" if by is None else by[1].lower().rstrip("."))
            if found:
                break
        elif name == "authentication-results":
            text = _bare(field.value[:_CHARS])
            if not server:
                above.append(text)
            elif _server(text) == server.lower():
                found.append(text)
    return _verdicts(found)


def _learnt(above: list[str], by: str) -> Authentication | None:
    """What stands above the topmost Received field, whose server is `by`."""
    said = _server(above[0]) if above else ""
    # A parent domain has a dot: `com` is nobody's name.
    if said and (said == by or ("." in said and by.endswith(f".{said}"))):
        return _verdicts([text for text in above if _server(text) == said])
    return None


def _bare(text: str) -> str:
    """Without comments and what is quoted: a sender's address stands in both, and may hold `;dmarc=pass`."""
    out: list[str] = []
    depth = 0
    quoted = False
    for found in _TOKEN.finditer(text):
        token = found[0]
        if quoted:
            quoted = token != '"'
        elif depth:
            depth += (token == "(") - (token == ")")
        elif token == '"':
            quoted = True
            out.append('""')
        elif token == "(":
            depth = 1
            out.append(" ")
        else:
            out.append(token)
    bare = "".join(out)
    # What never ends takes the result with it that it stands in, and all that follow.
    return bare.rpartition(";")[0] if quoted or depth else bare


def _server(text: str) -> str:
    named = _SERVER.match(text.partition(";")[0])
    return named[1].lower().rstrip(".") if named is not None else ""


def _verdicts(fields: list[str]) -> Authentication | None:
    """Of fields of one server, the topmost first."""
    verdicts: dict[str, str] = {}
    for piece in (piece for text in fields for piece in text.split(";")[1:]):
        if (found := _RESULT.match(piece)) is not None:
            method, result = found[1].lower(), found[2].lower()
            if method not in verdicts or (method == "dkim" and result == _PASS):
                verdicts[method] = result
    if not verdicts:
        return None
    return Authentication(
        server=_server(fields[0]),
        spf=verdicts.get("spf", UNSET),
        dkim=verdicts.get("dkim", UNSET),
        dmarc=verdicts.get("dmarc", UNSET),
        arc=verdicts.get("arc", UNSET),
    )
