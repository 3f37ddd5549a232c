"""What a corpus's program does otherwise than the RFCs, on purpose → whether mailbus agrees, that taken into account.

Each is documented in docs/mime.md with the RFC's word. Where one says which of two fields
counts, the other is taken out of the mail, which is read again: nothing is taken as equal that is not said here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tests.corpora.readers import mailbus
from tests.corpora.seen import Seen, agrees, plain
from tests.corpora.truth import Case

Convention = Callable[[Case, Seen], bool]

_SUBJECT: Final = re.compile(rb"^subject:(?:.*\n)(?:[ \t].*\n)*", re.IGNORECASE | re.MULTILINE)
_TWICE: Final = re.compile(rb"^content-type:.*\n(?:[ \t].*\n)*(?=content-type:)", re.IGNORECASE | re.MULTILINE)
_BLANK: Final = re.compile(rb"\n\r?\n")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


def first_subject(case: Case, _seen: Seen) -> bool:
    """imap-tools: of several Subject fields the first."""
    end = _BLANK.search(case.raw)
    found = list(_SUBJECT.finditer(case.raw, 0, end.start() + 1 if end is not None else len(case.raw)))
    if len(found) < 2:
        return False
    raw = case.raw
    for one in reversed(found[1:]):
        raw = raw[: one.start()] + raw[one.end() :]
    return agrees("subject", case.expected, mailbus(raw))


def folds_are_nothing(case: Case, seen: Seen) -> bool:
    """imap-tools: the white space at the beginning of a folded line is no part of a subject."""
    found = _SUBJECT.search(case.raw)
    folded = found is not None and re.search(rb"\n[ \t]", found[0]) is not None
    want, got = case.expected.subject or "", seen.subject or ""
    return folded and "".join(want.split()) == "".join(got.split())


def all_is_the_address(case: Case, seen: Seen) -> bool:
    """imap-tools: a mailbox without angle brackets is an address, whatever stands in it."""
    (want,) = case.expected.from_ or [""]
    (got,) = seen.from_ or [""]
    return "<" not in want and want.split()[-1:] == [got]


def not_ascii_is_dropped(case: Case, seen: Seen) -> bool:
    """imap-tools: bytes that are none of us-ascii are left out."""
    return plain(case.expected.text or "") == plain(_NOT_ASCII.sub("", seen.text or ""))


def a_content_id_is_attached(case: Case, seen: Seen) -> bool:
    """imap-tools: a text with a Content-ID is an attachment as well as a text."""
    texts = seen.also.get("texts with ids", [])
    return bool(texts) and agrees(
        "attachments", case.expected, replace(seen, attachments=[*(seen.attachments or []), *texts])
    )


def nul_stays(case: Case, seen: Seen) -> bool:
    """Stalwart: NUL is text."""
    return plain((case.expected.text or "").replace("\0", "\ufffd")) == plain(seen.text or "")


def last_type(case: Case, _seen: Seen) -> bool:
    """Stalwart: of several Content-Type fields of a part the last."""
    raw = _TWICE.sub(b"", case.raw)
    return raw != case.raw and agrees("text", case.expected, mailbus(raw))


def unread_is_attached(case: Case, seen: Seen) -> bool:
    """Stalwart: what no boundary closes is marked as a problem and attached, and so is all that follows."""
    known = case.expected.also.get("read whole")
    return known is not None and plain(seen.text or "").startswith(plain("\n".join(known)))


def unknown_is_filtered(case: Case, seen: Seen) -> bool:
    """Sisimai: who is unknown is filtered, and not for good, where a report does not say that RCPT was refused."""
    want, got = case.expected.reason or [], seen.reason or []
    return len(want) == len(got) and all(
        one == other or (one == "filtered" and other == "userunknown") for one, other in zip(want, got, strict=True)
    )


def forwarded_is_a_bounce(case: Case, seen: Seen) -> bool:
    """Sisimai: a bounce that somebody forwards is one; here it is his mail."""
    forwarded = re.search(rb"^subject: *fwd?:", case.raw, re.IGNORECASE | re.MULTILINE) is not None
    return forwarded and seen.kind == "message"


def numbers_are_a_date(case: Case, seen: Seen) -> bool:
    """Stalwart: numbers are day, month, year and time in their order, without a month's name."""
    return seen.date is None and re.search(rb"[A-Za-z]", case.raw.partition(b":")[2]) is None


def words_stand_apart(case: Case, seen: Seen) -> bool:
    """Stalwart: a space between a text and an encoded word that touches it."""
    touches = re.search(rb"[^\s?]=\?", case.raw) is not None
    return touches and "".join((case.expected.subject or "").split()) == "".join((seen.subject or "").split())


CONVENTIONS: Final[Mapping[tuple[str, str], tuple[Convention, ...]]] = {
    ("imap-tools", "subject"): (first_subject, folds_are_nothing),
    ("imap-tools", "from_"): (all_is_the_address,),
    ("imap-tools", "text"): (not_ascii_is_dropped,),
    ("imap-tools", "attachments"): (a_content_id_is_attached,),
    ("stalwart-mail-parser", "text"): (nul_stays, last_type, unread_is_attached),
    ("stalwart-header-fields", "date"): (numbers_are_a_date,),
    ("stalwart-header-fields", "subject"): (words_stand_apart,),
    ("sisimai-set-of-emails", "kind"): (forwarded_is_a_bounce,),
    ("sisimai-set-of-emails", "reason"): (unknown_is_filtered, forwarded_is_a_bounce),
    ("sisimai-set-of-emails", "hard"): (unknown_is_filtered, forwarded_is_a_bounce),
}


def agrees_by_convention(corpus: str, name: str, case: Case, seen: Seen) -> str:
    """The name of the convention by which they agree; "" for none."""
    for convention in CONVENTIONS.get((corpus, name), ()):
        if convention(case, seen):
            return convention.__name__
    return ""
