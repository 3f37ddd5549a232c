"""What `search` looks for and in which order: JMAP's filters and comparators (RFC 8621 4.4). Plain data and checks.

A filter is one class, as msgspec tells no two apart without a tag: a FilterOperator where `operator` is given
(RFC 8620 5.5), a FilterCondition otherwise (RFC 8621 4.4.1). What IMAP cannot look for is no field.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from service.contract.email import UtcDate
from service.contract.keywords import is_keyword
from service.contract.problems import Problem

DEPTH_LIMIT: Final = 10
CONDITIONS_LIMIT: Final = 100
# RFC 2683 3.2.1.5: servers need not take more than 8,000 octets in a line; some count literals too.
TEXT_LIMIT_BYTES: Final = 4000
COMPARATORS_LIMIT: Final = 4
# RFC 3501 date-text has four digits, and the days beside a moment must exist too.
YEARS: Final = range(1901, 9999)
_BREAKS: Final = frozenset("\r\n\0")

Octets = Annotated[int, Meta(ge=0)]


class Filter(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={
        "min_size": "minSize",
        "max_size": "maxSize",
        "has_keyword": "hasKeyword",
        "not_keyword": "notKeyword",
        "from_": "from",
    },
):
    """RFC 8620 5.5 FilterOperator with `operator` and `conditions`, RFC 8621 4.4.1 FilterCondition with the others.

    Of a condition all members must hold; one without members always does. `gmail` is no word of JMAP's: what one would
    write into Gmail's own search box, for a server that is Gmail.
    """

    operator: Literal["AND", "OR", "NOT"] | None = None
    conditions: "list[Filter] | None" = None
    before: UtcDate | None = None
    after: UtcDate | None = None
    min_size: Octets | None = None
    max_size: Octets | None = None
    has_keyword: str | None = None
    not_keyword: str | None = None
    text: str | None = None
    from_: str | None = None
    to: str | None = None
    cc: str | None = None
    bcc: str | None = None
    subject: str | None = None
    body: str | None = None
    header: list[str] | None = None
    gmail: str | None = None

    def texts(self) -> dict[str, str]:
        """What is looked for in the words of a mail, by the condition's name."""
        named = {
            "text": self.text,
            "from": self.from_,
            "to": self.to,
            "cc": self.cc,
            "bcc": self.bcc,
            "subject": self.subject,
            "body": self.body,
            "gmail": self.gmail,
        }
        return {name: value for name, value in named.items() if value is not None}


def wants_gmail(top: Filter | None) -> bool:
    """Whether a filter looks for something as Gmail does."""
    waiting = [top] if top is not None else []
    while waiting:
        one = waiting.pop()
        if one.gmail is not None:
            return True
        waiting += one.conditions or []
    return False


class Comparator(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8620 5.5: what `search` sorts by. Of `from`, `to` and `subject` case is not regarded."""

    property: Literal["receivedAt", "sentAt", "size", "from", "to", "subject"]
    is_ascending: bool = True


def check_filter(top: Filter) -> list[Problem]:
    """All that is wrong with a filter whose types are right."""
    problems: list[Problem] = []
    waiting = [(top, "filter", 1)]
    count = size = 0
    while waiting:
        one, field, depth = waiting.pop()
        count += 1
        if count > CONDITIONS_LIMIT or depth > DEPTH_LIMIT:
            return [Problem("filter", f"at most {CONDITIONS_LIMIT} conditions, {DEPTH_LIMIT} deep")]
        if one.operator is not None:
            problems += _check_operator(one, field)
            waiting += [(inner, f"{field}.conditions[{i}]", depth + 1) for i, inner in enumerate(one.conditions or [])]
        else:
            problems += _check_condition(one, field)
            size += sum(len(text.encode("utf-8", "replace")) for text in (*one.texts().values(), *(one.header or [])))
    if size > TEXT_LIMIT_BYTES:
        problems.append(Problem("filter", f"{size} bytes of text to look for; at most {TEXT_LIMIT_BYTES}"))
    return problems


def _check_operator(one: Filter, field: str) -> list[Problem]:
    if one.conditions is None:
        return [Problem(f"{field}.conditions", "an operator needs conditions")]
    if msgspec.structs.replace(one, operator=None, conditions=None) != Filter():
        return [Problem(field, "an operator has `conditions` and nothing beside them")]
    return []


def _check_condition(one: Filter, field: str) -> list[Problem]:
    problems: list[Problem] = []
    if one.conditions is not None:
        problems.append(Problem(f"{field}.operator", "conditions need an operator: AND, OR or NOT"))
    for name, moment in (("before", one.before), ("after", one.after)):
        if moment is not None and moment.year not in YEARS:
            problems.append(Problem(f"{field}.{name}", "not a time at which mail could have come"))
    for name, keyword in (("hasKeyword", one.has_keyword), ("notKeyword", one.not_keyword)):
        if keyword is not None and not is_keyword(keyword):
            problems.append(Problem(f"{field}.{name}", 'not a keyword: ASCII without spaces and ( ) { ] % * " \\'))
    for name, text in one.texts().items():
        problems += _check_text(f"{field}.{name}", text)
    if one.header is not None:
        if not 1 <= len(one.header) <= 2 or not one.header[0].isascii() or not one.header[0].isprintable():
            problems.append(Problem(f"{field}.header", "a field's name, or its name and a text, are wanted"))
        for text in one.header:
            problems += _check_text(f"{field}.header", text)
    return problems


def _check_text(field: str, text: str) -> list[Problem]:
    if _BREAKS & set(text) or any("\ud800" <= char <= "\udfff" for char in text):
        return [Problem(field, "CR, LF, NUL and half characters cannot be looked for")]
    return []
