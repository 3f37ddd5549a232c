"""The text of a bounce that no machine was meant to read → who did not get the mail, and what was said. Pure.

Mail servers have written such notices in a hundred forms; what they have in common is used here: the returned mail
comes last, behind a line that says so; an address that failed stands alone on its line, begins a line, is named in a
transcript of SMTP, or follows words that say what failed. What belongs to an address is what follows it.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from service.meaning.fields import READ, clean, groups, one_of
from service.meaning.places import OWN, After, Place, Places, Refused

# Notices have up to 10 KB before the returned mail begins.
_CHARS: Final = 64 * 1024
_LINES: Final = 1000
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
# What introduces names without a domain, and such a name.
_FOLLOWS: Final = re.compile(r"(?:recipient|address|user|deliver).{0,200}:\s*$", re.IGNORECASE)
_LOCAL: Final = re.compile(r"[ \t]+([A-Za-z0-9._+-]{1,64})[ \t]*$")
_SAID: Final = re.compile(r"\w{3} \w")
# Places where the returned mail may begin that are tried.
_CUTS: Final = 4


@dataclass(slots=True)
class Notice:
    """`text`: what stands before the returned mail; `returned`: that mail's header, names in lower case.

    `cut`: it is longer than what was looked at.
    """

    text: str
    refused: list[Refused] = field(default_factory=list)
    returned: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def read_notice(text: str, known: list[str], own: set[str], domain: str, *, cut: bool = False) -> Notice:
    """`known`: addresses that a header field names; `own`: those that the notice is from and to, in lower case.

    `domain`: the sender's, "" without one; `cut`: the text goes on.
    """
    cut = cut or len(text) > _CHARS
    text = text[:_CHARS]
    found = Notice(text)
    all_places = Places(text.splitlines()[:_LINES], own)
    places: list[Place] = []
    for end in (*_cuts(text), len(text)):
        notice, rest = text[:end], text[end:]
        found = Notice(notice, returned=returned_header(rest))
        sender = clean(found.returned.get("return-path", "")).lower()
        # Ends come in their order: no place is behind this one.
        places = [place.weighed(own, sender) for place in all_places.until(len(notice.splitlines()))]
        # What looks like a returned mail's beginning is none if nobody has been named before it.
        if any(place.rank % OWN <= 3 for place in places) or (known and _SAID.search(notice) is not None):
            break
    lines = found.text.splitlines()
    found.cut = len(lines) > all_places.read or (cut and len(found.text) == len(text))
    del lines[_LINES:]
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


def _from_places(found: Notice, lines: list[str], places: list[Place]) -> None:
    best = min(place.rank for place in places)
    # An address alone on its line is as sure as one in a transcript; words round it are less.
    taken = (
        [place for place in places if place.rank <= max(best, 1)]
        if best <= 1
        else [place for place in places if place.rank == best]
    )
    if best >= OWN:
        # Only the addresses of the notice itself: they failed where nothing else is named.
        taken = [place for place in taken if place.rank == best and best <= OWN + 2]
    seen: dict[str, Refused] = {}
    after = After(lines, taken)
    for place in taken:
        low = place.address.lower()
        if low not in seen:
            if len(seen) >= READ:
                break
            seen[low] = Refused(place.address)
        seen[low].original = after.of(place).alias or seen[low].original
        # Named again with more said, in a transcript, or in a second language.
        after.keep(place, seen[low])
    found.refused = list(seen.values())


def _known(found: Notice, known: list[str], lines: list[str], places: list[Place]) -> None:
    """A header field says who; the text says why."""
    wanted = {address.lower(): Refused(address) for address in known[:READ]}
    named = [place for place in places if place.address.lower() in wanted and place.rank <= 3]
    after = After(lines, named)
    for place in named:
        after.keep(place, wanted[place.address.lower()])
    found.refused += wanted.values()
