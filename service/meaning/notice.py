"""The text of a bounce that no machine was meant to read → who did not get the mail, and what was said. Pure.

Mail servers have written such notices in a hundred forms; what they have in common is used here: the returned mail
comes last, behind a line that says so; an address that failed stands alone on its line, begins a line, is named in a
transcript of SMTP, or follows words that say what failed. What belongs to an address is what follows it.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from service.meaning.fields import ADDRESS, READ, clean, groups, one_of

# Notices have up to 10 KB before the returned mail begins.
_CHARS: Final = 64 * 1024
_LINES: Final = 1000
_LINE_CHARS: Final = 1000
# What introduces the returned mail.
_RETURNED: Final = one_of(
    r"""
    this is a copy of
    below (?:this line )?is (?:a copy|the (?:original|returned))
    below this line is
    (?:the )?(?:header|body|start|text|copy|part) of (?:the |your )?(?:original|message(?! generated))
    (?:the )?original (?:message|mail|email|headers?)\b
    first \d+ (?:lines|bytes) of the message
    returned (?:message|mail)
    (?:unsent|forwarded|undelivered) message
    message (?:headers?|body|text|contents?)(?: follow| suppressed| *-| *$)
    included is
    mensaje original
    enclosed (?:is|you)
    your original
    (?:here|this|attached|following) is (?:a|the) copy of (?:the|your)
    a copy of the original message
    your message (?:reads|follows|text)
    the message headers? (?:follow|of)
    old message:
    【?送信(?:した)?メール
    元のメール
    原文
    исходное сообщение
    ursprüngliche nachricht
    message d'origine
    """,
    before=r"^[ \t>*|+]*+(?:-+[ \t]*)?",
    lines=True,
)
# A header that begins without a word: trace fields first, two fields one below the other.
_HEADER: Final = re.compile(
    r"^>?(?:Received: (?:from|by|\()|Return-Path: ?<|(?:DKIM-Signature|X-[\w-]+|MIME-Version|Message-ID|ARC-[\w-]+|From"
    r"|Date|Subject|To): .{0,900}\n(?:>?[ \t].{0,900}\n){0,40}>?(?:Received|DKIM-Signature|X-[\w-]+|Message-ID"
    r"|MIME-Version|Subject|Date|From|To|Reply-To|Return-Path): )",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD: Final = one_of(
    r"""
    received
    return-path
    message-id
    from
    to
    subject
    date
    mime-version
    content-type
    x-[\w-]+
    dkim-signature
    arc-[\w-]+
    delivered-to
    """,
    before="^",
    after=":",
    lines=True,
)
# Words after which an address is one that did not fail: who sent, whom to ask.
_NOT_FAILED: Final = one_of(
    r"""
    mail from
    from:
    sender
    sent by
    reply-to
    contact
    e-?mail to
    please (?:mail|send|forward|write)
    postmaster
    support
    help
    questions?
    message-?id
    (?:generated|expanded) from
    administrator
    return-path
    on behalf of
    my badmailfrom
    assistance
    visit
    """,
    before=r"\b",
    after=r"\b",
)
_FIELD_LINE: Final = re.compile(
    r"^[ \t>*]{0,8}(?:to|cc|from|subject|sent|date|reply-to|message-id)[ \t]*:", re.IGNORECASE
)
_RCPT: Final = re.compile(r"rcpt[ _]to[\s:(<]*+(?:smtp:)?([^\s<>()\[\],;\"']{1,320})", re.IGNORECASE)
# What stands before an address that failed, from the line's beginning on. It is asked of lines whose runs of white
# space are one space: there are 10^10 ways to share 900 out among the pieces that may take some.
_NAMED: Final = one_of(
    r"""
    (?:failed |final |original |intended |bad )?(?:recipients?|address(?:ee)?(?:\(es\))?|rcpt|user|mailbox|destination)
    to
    [ \w,'()]{0,60}(?:deliver|failed|invalid|unknown|bounce|reject|problem|originally addressed)[ \w,'()]{0,60}
    """,
    before=r"^[ *(>-]*",
    after=r" ?(?::|=|to|for|recipient|user|address)? ?[:=]? ?[\[<\"'(]{0,2}(?:smtp:|rfc822;)? ?<?$",
)
_WHITE: Final = re.compile(r"[ \t]+")
_TAIL: Final = re.compile(r"^[>\]\)\"'*]*[ \t]*(?:[:;,.…-]|\(|\.{2,}|$|on \w{3}|\d{3}\b|<)")
# Words that a line has which says of an address that it failed.
_FAILS: Final = re.compile(
    r"unknown|deliver|reject|not exist|unavailable|quota|\bfull\b|fail|no such|invalid|recipient|mailbox|did not"
    r"|not found|addressed|does not|\b55[0-4]\b|\b5\.\d\.\d",
    re.IGNORECASE,
)
# Sendmail: what the sender wrote, where an alias led elsewhere.
_EXPANDED: Final = re.compile(r"expanded from: ?<?([^\s<>()]{1,320}@[^\s<>()]{1,255})>?\)", re.IGNORECASE)
# What introduces names without a domain, and such a name.
_FOLLOWS: Final = re.compile(r"(?:recipient|address|user|deliver).{0,200}:\s*$", re.IGNORECASE)
_LOCAL: Final = re.compile(r"[ \t]+([A-Za-z0-9._+-]{1,64})[ \t]*$")
_SAID: Final = re.compile(r"\w{3} \w")
# What an address's rank rises by where it is the notice's own sender or reader: it failed only if nobody else did.
_OWN: Final = 10
# More addresses than a notice to 200 recipients has, each named twice; what follows each is read.
_PLACES: Final = 500
# Places where the returned mail may begin that are tried.
_CUTS: Final = 4
_LIST_END: Final = re.compile(r"^[ \t]*$")
_CODES: Final = re.compile(r"[45][0-5][0-9](?:[- ][45]\.[0-9]{1,3}\.[0-9]{1,3})?\Z")


@dataclass(slots=True)
class Refused:
    """One address, what the notice says after it, and the alias that led to it."""

    address: str
    said: str = ""
    original: str = ""


@dataclass(slots=True)
class Notice:
    """`text`: what stands before the returned mail; `returned`: that mail's header, names in lower case."""

    text: str
    refused: list[Refused] = field(default_factory=list)
    returned: dict[str, str] = field(default_factory=dict)


def read_notice(text: str, known: list[str], own: set[str], domain: str) -> Notice:
    """`known`: addresses that a header field names; `own`: those that the notice is from and to, in lower case.

    `domain`: the sender's, "" without one.
    """
    text = text[:_CHARS]
    found = Notice(text)
    places: list[_Place] = []
    for cut in (*_cuts(text), len(text)):
        notice, rest = text[:cut], text[cut:]
        found = Notice(notice, returned=returned_header(rest))
        places = _places(notice.splitlines()[:_LINES], own, found.returned)
        # What looks like a returned mail's beginning is none if nobody has been named before it.
        if any(place.rank % _OWN <= 3 for place in places) or (known and _SAID.search(notice) is not None):
            break
    lines = found.text.splitlines()[:_LINES]
    if known:
        _known(found, known, lines, places)
    elif places:
        _from_places(found, lines, places)
    else:
        _from_local_names(found, lines, domain)
    return found


def _from_local_names(found: Notice, lines: list[str], domain: str) -> None:
    """A server that writes of its own users only may leave their domain out, which is its own."""
    starts = [number for number, line in enumerate(lines) if _FOLLOWS.search(line) is not None]
    for number, line in enumerate(lines[starts[0] + 1 :] if starts and domain else ()):
        name = _LOCAL.match(line)
        if name is not None and len(found.refused) < READ:
            said = "\n".join(lines[max(starts[0] - 3, 0) : starts[0] + number + 5])
            found.refused.append(Refused(f"{name[1]}@{domain}", said))
        elif line.strip():
            break


def _cuts(text: str) -> list[int]:
    """Where the returned mail may begin, the likeliest first."""
    ends: set[int] = set()
    for pattern in (_RETURNED, _HEADER):
        for count, found in enumerate(pattern.finditer(text)):
            if count >= _CUTS:
                break
            if text[: found.start()].strip():
                ends.add(found.start())
    return sorted(ends)


def tells_returned(text: str) -> bool:
    """Whether a text has the returned mail in it, or a line that introduces it."""
    return bool(_cuts(text[:_CHARS]))


def returned_header(text: str) -> dict[str, str]:
    """The fields of the returned mail's header, wherever it begins in `text`."""
    start = _FIELD.search(text.replace("\n>", "\n").removeprefix(">") if "\n>" in text else text)
    if start is None:
        return {}
    plain = text.replace("\n> ", "\n").replace("\n>", "\n").removeprefix(">") if "\n>" in text else text
    start = _FIELD.search(plain)
    if start is None:
        return {}
    fields: dict[str, str] = {}
    for group in groups(plain[start.start() : start.start() + _CHARS], most=1):
        fields |= group
    return fields


@dataclass(frozen=True, slots=True)
class _Place:
    """An address on a line; the lower the rank, the surer."""

    line: int
    address: str
    rank: int


def _places(lines: list[str], own: set[str], returned: dict[str, str]) -> list[_Place]:
    places: list[_Place] = []
    sender = clean(returned.get("return-path", "")).lower()
    previous = ""
    for number, whole in enumerate(lines):
        line = whole[:_LINE_CHARS]
        if "@" not in line:
            # What ends with a colon speaks of what comes, over an empty line, too.
            if line.strip() or not previous.endswith(":"):
                previous = line.strip()
            continue
        rcpt = _RCPT.search(line)
        for found in ADDRESS.finditer(line):
            address = clean(found[0])
            domain = address.rpartition("@")[2]
            if not domain or len(address) > 320 or ("." not in domain and domain[0] != "["):
                continue
            low = address.lower()
            before, after = line[: found.start()], line[found.end() :]
            if low in own and _FIELD_LINE.match(line) is not None:
                continue  # the notice shows its own header
            if rcpt is not None and rcpt.start(1) <= found.start() <= rcpt.end(1):
                rank = 1
            elif _NOT_FAILED.search(before) is not None or (
                _FIELD_LINE.match(line) is not None and not before.strip().lower().startswith("to")
            ):
                continue
            else:
                rank = _rank(before, after, previous)
            if (
                low in own
                or low == sender
                or low.startswith(("postmaster@", "mailer-daemon@", "abuse@", "mailerdaemon@"))
            ):
                rank += _OWN
            places.append(_Place(number, address, rank))
            if len(places) >= _PLACES:
                return places
        previous = line
    return places


def _rank(before: str, after: str, previous: str) -> int:
    opened = before.strip(" \t<*>-\"'[(|:\u3000&")
    if _CODES.match(opened) is not None:
        return 1
    if not opened or opened.lower() in ("smtp:", "smtp", "rfc822;"):
        # Alone on its line, or with what became of it behind it.
        if _TAIL.match(after) is not None:
            return 0 if not _NOT_FAILED.search(previous) else 4
        return 3
    if _NAMED.match(_WHITE.sub(" ", before)) is not None:
        return 1 if not _FIELD_LINE.match(before) else 3
    return 2 if _FAILS.search(f"{before} {after}") is not None else 5


def _from_places(found: Notice, lines: list[str], places: list[_Place]) -> None:
    best = min(place.rank for place in places)
    # An address alone on its line is as sure as one in a transcript; words round it are less.
    taken = (
        [place for place in places if place.rank <= max(best, 1)]
        if best <= 1
        else [place for place in places if place.rank == best]
    )
    if best >= _OWN:
        # Only the addresses of the notice itself: they failed where nothing else is named.
        taken = [place for place in taken if place.rank == best and best <= _OWN + 2]
    seen: dict[str, Refused] = {}
    starts = _starts(taken)
    for place in taken:
        low = place.address.lower()
        said = _after(lines, place.line, starts)
        alias = _EXPANDED.search(said)
        if alias is not None and low in seen:
            seen[low].original = alias[1]
        if low in seen:
            # Named again with more said, in a transcript, or in a second language.
            if _weight(said) > _weight(seen[low].said):
                seen[low].said = said
            continue
        if len(seen) >= READ:
            break
        seen[low] = Refused(place.address, said, "" if alias is None else alias[1])
    found.refused = list(seen.values())


def _starts(places: list[_Place]) -> list[int]:
    """The lines on which something is said of another address than before; a reply that names it again goes on."""
    starts: list[int] = []
    line, address = -1, ""
    for place in places:
        low = place.address.lower()
        if low != address or place.line > line + 1:
            starts.append(place.line)
        line, address = place.line, low
    return sorted(set(starts))


def _known(found: Notice, known: list[str], lines: list[str], places: list[_Place]) -> None:
    """A header field says who; the text says why."""
    wanted = {address.lower() for address in known}
    starts = _starts([place for place in places if place.address.lower() in wanted and place.rank <= 3])
    for address in known[:READ]:
        said = ""
        for place in places:
            if place.address.lower() == address.lower() and place.rank <= 3:
                here = _after(lines, place.line, starts)
                if _weight(here) > _weight(said):
                    said = here
        found.refused.append(Refused(address, said))


_SAYS: Final = re.compile(r"\b[245][0-5][0-9][ -]|\b[245]\.\d{1,3}\.\d{1,3}\b")


def _weight(said: str) -> int:
    """Replies of a server weigh more than words."""
    return (1000 if _SAYS.search(said) is not None else 0) + min(len(said), 900)


def _after(lines: list[str], at: int, starts: list[int]) -> str:
    """The line of an address and what follows, up to the next address or past two empty lines."""
    ends = [start for start in starts if start > at]
    end = min(ends[0] if ends else len(lines), at + 25)
    out: list[str] = []
    empty = 0
    for line in lines[at:end]:
        if _LIST_END.match(line):
            empty += 1
            if empty > 2:
                break
            continue
        out.append(line.strip()[:_LINE_CHARS])
    return "\n".join(out)
