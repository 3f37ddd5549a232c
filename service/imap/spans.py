"""A sequence-set of a response → spans of numbers. Pure.

RFC 9051 section 9 (sequence-set), RFC 4731 3.1 (ALL), RFC 7162 3.2.10 (known-uids). Responses never have `*`.
"""

import re
from dataclasses import dataclass
from typing import Final

from service.errors import PeerError

_SET: Final = re.compile(rb"\d{1,10}(?::\d{1,10})?(?:,\d{1,10}(?::\d{1,10})?)*\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers first to last."""

    first: int
    last: int


def parse_spans(text: bytes) -> list[Span]:
    """Spans in the order in which they are written; empty for no text. Raises PeerError for what is no set."""
    if not text:
        return []
    if not _SET.match(text):
        raise PeerError("a set of numbers that is none")
    spans: list[Span] = []
    for part in text.split(b","):
        low, _, high = part.partition(b":")
        a, b = int(low), int(high or low)
        # RFC 9051 section 9: 4:2 is 2:4. Nothing is beyond 32 bits.
        first, last = max(1, min(a, b)), min(2**32 - 1, max(a, b))
        if first <= last:
            spans.append(Span(first, last))
    return spans


def total(spans: list[Span]) -> int:
    """How many numbers they hold."""
    return sum(span.last - span.first + 1 for span in spans)
