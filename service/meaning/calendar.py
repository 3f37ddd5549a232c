"""A text/calendar part → the first event of an invitation or of an answer to one. Pure, linear, never raises.

RFC 5545 3.1 (lines and folds), 3.3.11 (text), RFC 5546 (methods), RFC 6047 (iMIP). Times stay as they stand there:
whoever needs recurrences and time zones reads the part itself, which is an attachment.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import UNSET, UnsetType

from service.contract import Attendee, Calendar
from service.meaning.fields import READ, TEXT_CHARS, text_of

# An invitation has 2 to 20 KB; a whole calendar that somebody exported is none.
BYTES: Final = 256 * 1024
# One more is read than an event has (read.py).
_VALUE_CHARS: Final = TEXT_CHARS + 1
_FOLD: Final = re.compile(r"\r?\n[ \t]")
_END: Final = re.compile(r"\r\n|\n|\r")
_PARAM: Final = re.compile(r';([A-Za-z0-9-]{1,40})=("[^"]*"|[^;:",]*)(?:,(?:"[^"]*"|[^;:",]*))*')
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:T([0-9]{2})([0-9]{2})([0-9]{2})(Z?))?\Z")
_COMPONENTS: Final = ("VEVENT", "VTODO", "VFREEBUSY", "VJOURNAL")


class _Property:
    """RFC 5545 3.1: a content line taken apart."""

    def __init__(self, name: str, params: dict[str, str], value: str) -> None:
        self.name = name
        self.params = params
        self.value = value


def calendar(content: bytes) -> Calendar | None:
    """None where there is no event in it. RFC 6047 2.4: the part has the method, too."""
    text = text_of(content[:BYTES])
    method = ""
    found: dict[str, _Property] = {}
    attendees: list[Attendee] = []
    inside: list[str] = []
    component = ""
    for line in _properties(text):
        name = line.name
        if name == "BEGIN":
            inside.append(line.value.strip().upper()[:40])
            if len(inside) > 50:
                break
            if inside[-1] in _COMPONENTS and len(inside) <= 2:
                component = inside[-1]
        elif name == "END":
            if inside and inside.pop() == component and component:
                break
        elif name == "METHOD" and len(inside) <= 1:
            method = line.value.strip()
        elif component and inside and inside[-1] == component:
            if name == "ATTENDEE":
                if len(attendees) < READ and (who := _address(line.value)):
                    status = line.params.get("PARTSTAT", "").lower()
                    attendees.append(Attendee(who, status or UNSET))
            else:
                found.setdefault(name, line)
    if not component:
        return None
    return _made(found, attendees, method)


def _made(found: dict[str, _Property], attendees: list[Attendee], method: str) -> Calendar:
    start, end, organizer = found.get("DTSTART"), found.get("DTEND") or found.get("DUE"), found.get("ORGANIZER")
    zone = "" if start is None else start.params.get("TZID", "")
    sequence = found.get("SEQUENCE")
    digits = "" if sequence is None else sequence.value.strip()[:9]
    return Calendar(
        # RFC 5546 1.4: without a method it is a calendar that somebody sends, not a question; whatever the Content-Type
        # says (RFC 5545 3.7.2: without this property "a scheduling transaction MUST NOT be assumed").
        method=method.upper()[:40] or "PUBLISH",
        uid=_text(found.get("UID")),
        summary=_text(found.get("SUMMARY")),
        start=_time(start),
        end=_time(end),
        time_zone=zone[:100] or UNSET,
        location=_text(found.get("LOCATION")),
        organizer=(_address(organizer.value) if organizer is not None else "") or UNSET,
        attendees=attendees or UNSET,
        recurrence=_text(found.get("RRULE")),
        sequence=int(digits) if digits.isascii() and digits.isdigit() else UNSET,
    )


def _properties(text: str) -> Iterator[_Property]:
    for line in _END.split(_FOLD.sub("", text)):
        head = re.match(r"[A-Za-z0-9-]{1,60}", line)
        if head is None:
            continue
        params: dict[str, str] = {}
        at = head.end()
        while at < len(line) and line[at] == ";":
            param = _PARAM.match(line, at)
            if param is None:
                break
            params.setdefault(param[1].upper(), param[2].strip('"'))
            at = param.end()
        if line[at : at + 1] == ":":
            yield _Property(head[0].upper(), params, line[at + 1 :])


def _text(line: _Property | None) -> str | UnsetType:
    r"""RFC 5545 3.3.11: \n is a line break, \, and \; and \\ are the character."""
    if line is None:
        return UNSET
    value = _ESCAPE.sub(lambda found: "\n" if found[1] in "nN" else found[1], line.value[: _VALUE_CHARS * 2])
    return value.strip()[:_VALUE_CHARS] or UNSET


def _time(line: _Property | None) -> str | UnsetType:
    """RFC 5545 3.3.4 and 3.3.5, written as RFC 3339 writes them."""
    if line is None:
        return UNSET
    found = _DATE.match(line.value.strip())
    if found is None:
        return UNSET
    date = f"{found[1]}-{found[2]}-{found[3]}"
    return date if found[4] is None else f"{date}T{found[4]}:{found[5]}:{found[6]}{found[7]}"


def _address(value: str) -> str:
    """RFC 5545 3.3.3: `mailto:` and an address."""
    value = value.strip()
    if value[:7].lower() == "mailto:":
        value = value[7:]
    return value.partition("?")[0].strip()[:320] if "@" in value else ""
