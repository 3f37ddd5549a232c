"""What is known of messages → their order, where a server does not sort. Pure.

Used by search.py. RFC 8621 4.4.2; RFC 5256 section 2.1 for the base subject.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from service.contract import Comparator, Email

_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_REPLY: Final = re.compile(r" ?(?:(?:re|fwd?) ?(?:\[[^\[\]]*\])? ?:|\[[^\[\]]*\])")
_FORWARDED: Final = "(fwd)"


@dataclass(frozen=True, slots=True)
class Sortable:
    """A message as far as one sorts by it; `email` is None where its header is not needed."""

    uid: int
    size: int
    received_at: datetime | None
    email: Email | None


def in_order(messages: Sequence[Sortable], sort: Sequence[Comparator]) -> list[int]:
    """UIDs in the order of the first comparator, then of the others, then of arrival."""
    found = sorted(messages, key=lambda message: message.uid)
    for one in reversed(sort):
        # RFC 5256 section 3: of equal messages the order stays, also in reverse.
        found.sort(key=lambda message, name=one.property: _key(message, name), reverse=not one.is_ascending)  # type: ignore[misc]
    return [message.uid for message in found]


def _key(message: Sortable, name: str) -> datetime | int | str:
    email = message.email
    match name:
        case "size":
            return message.size
        case "receivedAt":
            return message.received_at or _LONG_AGO
        case "sentAt":
            return (email.sent_at if email else None) or message.received_at or _LONG_AGO
        case "subject":
            return base_subject((email.subject if email else None) or "")
        case _:
            listed = (email.from_ if name == "from" else email.to) if email else None
            # RFC 8621 4.4.2: the name, or the address where there is none.
            return (listed[0].name or listed[0].email).casefold() if listed else ""


def base_subject(subject: str) -> str:
    """Without what replies and forwards put before and after it, in one case."""
    text = " ".join(subject.split()).casefold()
    # A subject may be these and nothing else, thousands of times: it is gone through once, and never cut in between.
    first, last = 0, len(text)
    while text.endswith(_FORWARDED, 0, last):
        last -= len(_FORWARDED)
        last -= text.endswith(" ", 0, last)
    while (found := _REPLY.match(text, first, last)) and found.end() < last:
        first = found.end()
    return text[first:last].strip()
