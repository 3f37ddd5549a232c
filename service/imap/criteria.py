"""JMAP's filters → IMAP's search keys. Pure; every text goes through encode.py.

Used by commands.py. RFC 9051 6.4.4 (search keys), RFC 5032 (OLDER, YOUNGER), RFC 8621 4.4.1 (what a filter means).
SINCE and BEFORE disregard time and zone, and OLDER and YOUNGER go by the server's clock, so of a moment in a filter
the messages near it are looked at one by one, and named by their UIDs.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from service.contract import Comparator, Filter, flag_of
from service.imap.encode import Argument, Literal, astring, date

# Two clocks may differ by this much, and the search may come this much after the filter was made.
SKEW_S: Final = 900
# RFC 9051 section 9, nz-number.
NUMBER_LIMIT: Final = 2**32 - 1
NOTHING: Final = "NOT ALL"

# The system flags have search keys of their own (RFC 9051 6.4.4).
_FLAG_KEYS: Final = {r"\Seen": "SEEN", r"\Flagged": "FLAGGED", r"\Answered": "ANSWERED", r"\Draft": "DRAFT"}
_TEXT_KEYS: Final = {
    "text": "TEXT",
    "from": "FROM",
    "to": "TO",
    "cc": "CC",
    "bcc": "BCC",
    "subject": "SUBJECT",
    "body": "BODY",
    # developers.google.com/gmail/imap/imap-extensions, X-GM-EXT-1
    "gmail": "X-GM-RAW",
}
# RFC 5256 section 3, RFC 5957: JMAP sorts addresses by the name that is shown.
SORT_KEYS: Final = {
    "receivedAt": "ARRIVAL",
    "sentAt": "DATE",
    "size": "SIZE",
    "subject": "SUBJECT",
    "from": "DISPLAYFROM",
    "to": "DISPLAYTO",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as search keys: messages surely later, surely earlier, and those near it, which must be looked at."""

    later: str
    earlier: str
    near: str


@dataclass(frozen=True, slots=True)
class Near:
    """The messages near a moment, as UID sets: at or after it, and before it. "" is none."""

    after: str
    before: str


def moments(filter: Filter | None) -> list[datetime]:
    """Every moment that a filter names."""
    found: dict[datetime, None] = {}
    waiting = [filter] if filter is not None else []
    while waiting:
        one = waiting.pop()
        found |= dict.fromkeys(moment for moment in (one.after, one.before) if moment is not None)
        waiting += one.conditions or []
    return list(found)


def moment_keys(moment: datetime, *, now: datetime, within: bool) -> Moment:
    """`within`: the server offers RFC 5032; `now`: the time here."""
    ago = int((now - moment).total_seconds())
    if not within or not SKEW_S < ago < NUMBER_LIMIT - SKEW_S:
        # A day of a server is a day of UTC, the one before, or the one after.
        since, before = date(moment + timedelta(days=2)), date(moment - timedelta(days=1))
        return Moment(f"SINCE {since}", f"BEFORE {before}", f"SINCE {before} BEFORE {since}")
    young, old = ago - SKEW_S, ago + SKEW_S
    return Moment(f"YOUNGER {young}", f"OLDER {old}", f"YOUNGER {old} OLDER {young}")


def criteria(
    filter: Filter | None, *, utf8: bool, keys: Mapping[datetime, Moment], near: Mapping[datetime, Near]
) -> list[Argument]:
    """Search keys of a filter that check_filter found right; `keys` and `near` for each of its moments.

    Recursion is bounded: check_filter allows ten levels.
    """
    if filter is None:
        return ["ALL"]
    if filter.operator is None:
        return all_of(_conditions(filter, utf8, keys, near))
    inner = [criteria(one, utf8=utf8, keys=keys, near=near) for one in filter.conditions or []]
    match filter.operator:
        case "AND":
            return all_of(inner)
        case "OR":
            return any_of(inner)
        case "NOT":
            # RFC 8620 5.5: none of them matches.
            return ["NOT", *any_of(inner)] if inner else ["ALL"]


def charset(arguments: Sequence[Argument], *, utf8: bool) -> list[Argument]:
    """RFC 9051 6.4.4: needed where a text is not ASCII; forbidden once UTF-8 is enabled (RFC 6855 section 3)."""
    return [] if utf8 or not any(isinstance(one, Literal) for one in arguments) else ["CHARSET UTF-8"]


def sort_keys(sort: Sequence[Comparator]) -> str:
    """RFC 5256 section 3, sort-criteria, in brackets."""
    return "(" + " ".join(("" if one.is_ascending else "REVERSE ") + SORT_KEYS[one.property] for one in sort) + ")"


def sortable(sort: Sequence[Comparator], capabilities: frozenset[str]) -> bool:
    """Whether the server sorts by these as JMAP wants it."""
    shown = any(one.property in {"from", "to"} for one in sort)
    return "SORT" in capabilities and (not shown or "SORT=DISPLAY" in capabilities)


def _conditions(
    one: Filter, utf8: bool, keys: Mapping[datetime, Moment], near: Mapping[datetime, Near]
) -> list[list[Argument]]:
    found: list[list[Argument]] = []
    if one.after is not None:
        found.append([_moment_key(keys[one.after].later, near[one.after].after)])
    if one.before is not None:
        found.append([_moment_key(keys[one.before].earlier, near[one.before].before)])
    # RFC 8621 4.4.1: at least minSize, less than maxSize; LARGER and SMALLER leave their number out.
    if one.min_size:
        found.append([f"LARGER {one.min_size - 1}" if one.min_size <= NUMBER_LIMIT else NOTHING])
    if one.max_size is not None and one.max_size <= NUMBER_LIMIT:
        found.append([f"SMALLER {one.max_size}" if one.max_size else NOTHING])
    if one.has_keyword is not None:
        found.append([_keyword_key(one.has_keyword)])
    if one.not_keyword is not None:
        found.append([f"NOT {_keyword_key(one.not_keyword)}"])
    for name, text in one.texts().items():
        found.append([_TEXT_KEYS[name], _text(text, utf8, name)])
    if one.header is not None:
        name, text = one.header[0], one.header[1] if len(one.header) > 1 else ""
        found.append(["HEADER", astring(name, utf8=utf8, field="header"), _text(text, utf8, "header")])
    return found


def _moment_key(surely: str, uids: str) -> str:
    return f"OR {surely} UID {uids}" if uids else surely


def _keyword_key(keyword: str) -> str:
    flag = flag_of(keyword)
    return _FLAG_KEYS.get(flag) or f"KEYWORD {flag}"


def _text(text: str, utf8: bool, field: str) -> Argument:
    # As mail is written mostly; servers shall compare without regard to it (RFC 9051 6.4.4).
    return astring(unicodedata.normalize("NFC", text), utf8=utf8, field=field)


def all_of(keys: Sequence[list[Argument]]) -> list[Argument]:
    match len(keys):
        case 0:
            return ["ALL"]
        case 1:
            return keys[0]
        case _:
            return ["(", *(argument for key in keys for argument in key), ")"]


def any_of(keys: Sequence[list[Argument]]) -> list[Argument]:
    """OR takes two: halves of halves, so that a hundred conditions nest seven deep."""
    match len(keys):
        case 0:
            return [NOTHING]
        case 1:
            return keys[0]
        case count:
            return ["OR", *any_of(keys[: count // 2]), *any_of(keys[count // 2 :])]
