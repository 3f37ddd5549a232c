"""What a reader sees in a mail, and what a corpus expects of it, in one shape."""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class Seen:
    """A property that is None is not looked at. Addresses in lower case; attachments by the hash of their bytes."""

    subject: str | None = None
    from_: list[str] | None = None
    to: list[str] | None = None
    date: datetime | None = None
    message_id: str | None = None
    text: str | None = None
    attachments: list[str] | None = None
    kind: str | None = None
    recipients: list[str] | None = None
    reason: list[str] | None = None
    hard: list[bool] | None = None
    # Where any of several is right; for recipients: addresses that may also be named.
    also: dict[str, list[str]] = field(default_factory=dict)


PROPERTIES = (
    "subject",
    "from_",
    "to",
    "date",
    "message_id",
    "text",
    "attachments",
    "kind",
    "recipients",
    "reason",
    "hard",
)
_WHITE = re.compile(r"[\s\u200b]+")


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain(text: str) -> str:
    """Line ends and runs of white space are nobody's truth."""
    return _WHITE.sub(" ", text).strip()


def agrees(name: str, expected: Seen, seen: Seen) -> bool:
    """Whether a property is as expected."""
    want, got = getattr(expected, name), getattr(seen, name)
    if name in ("subject", "text"):
        return plain(want) == plain(got if isinstance(got, str) else "")
    if name == "date":
        return got is not None and want.astimezone() == got.astimezone()
    if name == "kind":
        return want == got or got in expected.also.get("kind", [])
    if name == "recipients":
        given = set(got or [])
        # An alias that a report names beside the address counts as named.
        return set(want) <= given | set(seen.also.get("recipients", [])) and bool(want) == bool(given)
    if name == "reason":
        allowed = expected.also.get("reason")
        return bool(got) and got[0] in allowed if allowed else want == got
    if name == "attachments":
        # Some count what is shown within the text, too, some only what is no text.
        others = [seen.also.get("shown", []), seen.also.get("binary", [])]
        others += [seen.also.get(name, []) for name in expected.also.get("attachments", [])]
        return any(sorted(want) == sorted(one) for one in (got or [], *others))
    return bool(want == got)
