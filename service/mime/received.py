"""The topmost Received field of a message → when the last server took it. Pure, linear, never raises.

RFC 5321 4.4: whoever takes a message puts a line with the time on top of it. For mail whose server tells no date.
"""

import re
from datetime import datetime
from typing import Final

from service.mime.dates import parse_date
from service.mime.header import find_end

# What servers of our own side put on top is not longer.
_WINDOW: Final = 32 * 1024
_RECEIVED: Final = re.compile(rb"(?:\A|\n)received[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE)


def received_at(raw: bytes) -> datetime | None:
    """The time of the first Received field; None without one, or where it has none."""
    end = find_end(raw, 0, min(len(raw), _WINDOW)).header
    found = _RECEIVED.search(raw, 0, end)
    if found is None:
        return None
    return parse_date(found[1].decode("ascii", "replace").rpartition(";")[2].strip())
