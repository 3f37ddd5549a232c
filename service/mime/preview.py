"""A mail's first words: text or HTML → at most 256 characters. Pure, never raises. RFC 8621 4.1.4 `preview`."""

import re
from typing import Final

from selectolax.lexbor import LexborHTMLParser

# Zero-width and soft characters that newsletters pad their first line with.
_PADDING: Final = re.compile("[\u00ad\u034f\u061c\u200b-\u200f\u2007\u2060-\u2064\ufeff\u0000-\u0008\u000e-\u001f]+")
# Enough words for a preview in any text that has them at its beginning.
_TEXT_CHARS: Final = 2048


def preview_of_text(text: str, *, most: int) -> str:
    """White space is one space."""
    head = text[:_TEXT_CHARS]
    if not head.isascii():
        head = _PADDING.sub("", head)
    shown = " ".join(head.split())
    return shown if len(shown) <= most else shown[:most].rstrip()


def preview_of_html(html: str, *, most: int, look_at: int) -> str:
    """The text of the first `look_at` characters (see MimeLimits.preview_html_chars)."""
    try:
        tree = LexborHTMLParser(html[:look_at])
        tree.strip_tags(["head", "style", "script", "title", "template", "noscript", "svg"])
        text = tree.text(separator=" ")
    except Exception:  # noqa: BLE001 a C parser over hostile input: no preview then
        return ""
    return preview_of_text(text, most=most)
