"""A message's header, and its first lines where that says too little → by what it is known over another protocol. Pure.

Used where IMAP and POP3 share no number: announce.py notes what IMAP read, paired.py looks at what POP3 shows, and on
IMAP's return mailbox.py finds what POP3 announced; and by whoever deletes from a maildrop, to see that it is the mail
that was announced. Servers differ in sizes, dates and the status fields that they add; what is taken here came with the
mail: Message-ID, Date, From, Subject, and the Received field of the delivery.
"""

import hashlib
from typing import Final

from service.ingest.marks import MARK_BYTES

# RFC 1939 7, TOP: so many lines of the body come with the header.
CONTENT_LINES: Final = 10
# What of a message is looked at: no header that is one is longer, nor are the lines that count.
HEADER_LIMIT_BYTES: Final = 256 * 1024
CONTENT_LIMIT_BYTES: Final = 4096
_TAKEN: Final = (b"received", b"message-id", b"date", b"from", b"subject")
# With what a line of theirs begins. This is done for each mail of a maildrop.
_FIRST: Final = frozenset(bytes([char]) for char in b"rRmMdDfFsS \t\r\x0b\x0c")
# Either of them is another for each delivery: a header without both may be that of many mails.
_TELLING: Final = (b"received", b"message-id")


def print_of(body: bytes, *, whole: bool) -> str:
    """Hex digits; empty where a header alone says too little. `whole`: the first lines of the content are there."""
    end, start = _ends(body)
    header = body[:end].replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b" ")
    fields: dict[bytes, bytes] = {}
    for line in header.split(b"\n"):
        if line[:1] not in _FIRST:
            continue
        name, _, value = line.partition(b":")
        name = name.strip().lower()
        if name in _TAKEN and name not in fields:
            fields[name] = b" ".join(value.split())
    said = [fields.get(name, b"") for name in _TAKEN]
    if not any(fields.get(name) for name in _TELLING):
        if not whole:
            return ""
        content = body[start:HEADER_LIMIT_BYTES].replace(b"\r\n", b"\n")
        lines = [line.rstrip() for line in content.split(b"\n")[:CONTENT_LINES]]
        said.append(b"\n".join(lines).rstrip()[:CONTENT_LIMIT_BYTES])
    return hashlib.sha256(b"\0".join(said)).hexdigest()[: 2 * MARK_BYTES]


def header_print(header: bytes) -> str:
    """As print_of, of a header alone."""
    return print_of(header, whole=False)


def _ends(body: bytes) -> tuple[int, int]:
    """Where the header ends and the content begins, whichever line ends there are."""
    limit = min(len(body), HEADER_LIMIT_BYTES)
    crlf = body.find(b"\n\r\n", 0, limit)
    bare = body.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else limit)
    at = bare if bare >= 0 else crlf
    if at < 0:
        return limit, limit
    return at - (body[at - 1 : at] == b"\r"), at + (2 if bare >= 0 else 3)
