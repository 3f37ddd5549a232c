"""What a mail may cost, each limit with its reason. Whatever is cut by one is named in `mailbus.truncated`."""

from dataclasses import dataclass
from enum import StrEnum


class Cut(StrEnum):
    """What was cut: the words of `mailbus.truncated`."""

    DEPTH = "depth"
    PARTS = "parts"
    HEADERS = "headers"
    RECIPIENTS = "recipients"
    REFERENCES = "references"
    SUBJECT = "subject"
    NAMES = "names"
    UNPACKED = "unpacked"
    EXTRAS = "extras"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class MimeLimits:
    """Bounds of work and of the event's size. The defaults are far beyond what people send."""

    # Real mail nests 3 to 10 deep; a tree deeper than this breaks JSON readers that recurse.
    depth: int = 100
    # A part costs about 1 KB of event (it stands in bodyStructure and again in attachments).
    parts: int = 1000
    # Long relay chains with ARC and antispam headers reach 150.
    header_count: int = 1000
    # Gmail refuses headers over 500 KB, Exchange over 256 KB; the rest is read over, not into memory.
    header_bytes: int = 512 * 1024
    # RFC 5321 4.5.3.1.8 asks servers for 100 recipients; mail with thousands in its To exists, and nobody reads them.
    recipients: int = 1000
    # RFC 5322 3.6.4: clients shorten References; 100 is a very long thread.
    references: int = 500
    # One field that is decoded: what a subject or an address list may weigh.
    value_chars: int = 64 * 1024
    # RFC 2047 2: a word has at most 75 characters; each costs a microsecond.
    encoded_words: int = 2000
    # Subjects beyond this are attacks on those who show them.
    subject_chars: int = 4096
    # File systems take 255.
    name_chars: int = 255
    # Files within texts and winmail.dat files; the largest known winmail.dat of a person has 40.
    unpacked: int = 100
    # Of all compressed RTF in a mail: it grows eightfold, and 10 MB take a second; the text of a long mail has 100 KB.
    rtf_bytes: int = 1024 * 1024
    # Lines that begin like a boundary and are none (diffs, signatures): each costs a step of Python.
    boundary_misses: int = 100_000
    # Of a text that extras are made of: an hour's reading; HTML is sanitised at about 20 MB a second.
    extra_chars: int = 256 * 1024
    # RFC 8621 4.1.4: preview has at most 256 characters.
    preview_chars: int = 256
    # Every HTML tree parser is quadratic in depth: 1 MB of <div> takes lexbor 222 s, 16 KB at worst 13 ms.
    preview_html_chars: int = 16 * 1024
    # What of a body over the inline limit still rides in the event (`isTruncated`); all of it is a blob.
    prefix_chars: int = 4096
