"""A mail as it came → whether to understand it may take long for its size. Pure; 30 µs for one of 40 KB.

Used by whoever parses, before it does: reports of delivery, invitations and what looks like them have words looked up,
at 2 to 5 µs a character. A mail that is one and is not taken for one takes a while longer where it is read, no more.
"""

import re
from typing import Final

from service.meaning.bounces import ADMINISTRATORS, DAEMONS

# Where the fields are that tell: further down there are none but the sender's own.
_HEADER_BYTES: Final = 16 * 1024
_FIELD_BYTES: Final = 1000
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")
# What read.py takes for a program's: a field of theirs, the form of a report, the null path, a name, or no name.
_MARKS: Final = (
    b"\nx-failed-recipients", b"\nauto-submitted", b"\nx-amz-sns-message-id", b"\nx-auto", b"multipart/report",
    b"text/calendar",
)  # fmt: skip
_PATH: Final = re.compile(rb"\nreturn-path[ \t]{0,9}:[ \t]{0,9}<>")
_FROM: Final = re.compile(rb"\nfrom[ \t]{0,9}:((?:[^\n]*+\n[ \t])*+[^\n]*+)")
_NAMES: Final = re.compile(rb"\b(?:" + f"{DAEMONS}|{ADMINISTRATORS}".encode() + rb")@")
# Parts for programs, wherever they stand; all who write these types write them in small letters.
_PARTS: Final = (b"delivery-status", b"text/calendar", b"application/ics")


def takes_long(mail: bytes) -> bool:
    """Whether a mail looks like a report or an invitation."""
    end = _HEADER_END.search(mail, 0, _HEADER_BYTES)
    header = b"\n" + mail[: _HEADER_BYTES if end is None else end.start()].lower()
    if any(mark in header for mark in _MARKS) or _PATH.search(header) is not None:
        return True
    found = _FROM.search(header)
    sender = b"" if found is None else found[1][:_FIELD_BYTES]
    return b"@" not in sender or _NAMES.search(sender) is not None or any(part in mail for part in _PARTS)
