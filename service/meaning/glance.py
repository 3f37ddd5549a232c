"""A mail as it came → whether to understand it may take long for its size. Pure; 3 µs for a letter, 10 for 40 KB.

Used by whoever parses, before it does: reports of delivery, invitations and what looks like them have words looked up,
at 2 to 5 µs a character. A mail that is one and is not taken for one takes a while longer where it is read, no more.
"""

import re
from typing import Final

from service.meaning.bounces import ADMINISTRATORS, DAEMONS, says_undelivered

# Where the fields are that tell: further down there are none but the sender's own.
_HEADER_BYTES: Final = 16 * 1024
_FIELD_BYTES: Final = 1000
# What read.py takes for a program's: a field of theirs, the form of a report, the null path, a name, or no name. Fields
# of those who are away are none: such answers are known by them alone.
_MARKS: Final = re.compile(
    rb"\n(?:x-failed-recipients|x-amz-sns-message-id|return-path[ \t]{0,9}:[ \t]{0,9}<>"
    rb"|content-type[ \t]{0,9}:\s{0,9}(?:multipart/report|text/calendar|application/ics|message/(?:global-)?delivery))"
)
# RFC 3834 5: any keyword but `no` is a program's. Shops and trackers write so, too: it wants a subject beside it.
_AUTOMATIC: Final = re.compile(rb"\nauto-submitted[ \t]{0,9}:(?!\s{0,9}no)")
_SUBJECT: Final = re.compile(rb"\nsubject[ \t]{0,9}:((?:[^\n]*+\n[ \t])*+[^\n]*+)")
_FROM: Final = re.compile(rb"\nfrom[ \t]{0,9}:((?:[^\n]*+\n[ \t])*+[^\n]*+)")
_NAMES: Final = re.compile(rb"\b(?:" + f"{DAEMONS}|{ADMINISTRATORS}".encode() + rb")@")
# Parts for programs, wherever they stand; all who write these types write them in small letters. A slash comes first,
# for which no others are looked at: a third of what three searches take.
_PARTS: Final = re.compile(rb"/(?:(?<=text/)calendar|(?<=application/)ics|(?<=message/)(?:global-)?delivery-status)")


def takes_long(mail: bytes) -> bool:
    """Whether a mail looks like a report or an invitation."""
    end = _header_end(mail)
    header = b"\n" + mail[:end].lower()
    if _MARKS.search(header) is not None:
        return True
    sender = _field(_FROM, header)
    if b"@" not in sender or _NAMES.search(sender) is not None:
        return True
    if _AUTOMATIC.search(header) is not None and _may_say_undelivered(_field(_SUBJECT, header)):
        return True
    # RFC 2046 5.1: what is no multipart has one part, whose type was looked at.
    return (b"multipart/" in header or end == _HEADER_BYTES) and _PARTS.search(mail) is not None


def _header_end(mail: bytes) -> int:
    """Where the first empty line is, as far as is looked; an expression for both line ends takes 16 µs for 2 KB."""
    end = mail.find(b"\n\r\n", 0, _HEADER_BYTES)
    end = _HEADER_BYTES if end < 0 else end
    bare = mail.find(b"\n\n", 0, end)
    return end if bare < 0 else bare


def _field(of: re.Pattern[bytes], header: bytes) -> bytes:
    found = of.search(header)
    return b"" if found is None else found[1][:_FIELD_BYTES]


def _may_say_undelivered(subject: bytes) -> bool:
    """Whether a subject is one of bounces; one in encoded words (RFC 2047 2) is not read here."""
    return b"=?" in subject or says_undelivered(b" ".join(subject.split()).decode("utf-8", "replace"))
