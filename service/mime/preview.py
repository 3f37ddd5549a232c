"""A mail's first words: text or HTML → at most 256 characters. Pure, never raises. RFC 8621 4.1.4 `preview`."""

import re
from typing import Final

from selectolax.lexbor import LexborHTMLParser

# Zero-width and soft characters that newsletters pad their first line with.
_PADDING: Final = re.compile("[\u00ad\u034f\u061c\u200b-\u200f\u2007\u2060-\u2064\ufeff\u0000-\u0008\u000e-\u001f]+")
_BLOCK: Final = re.compile(r"<(?:br|p|div|tr|li|h[1-6]|blockquote|table)\b", re.IGNORECASE)
# Enough words for a preview in nearly every text, and in any that has them at its beginning: 2 µs against 10.
_LOOK_AT_CHARS: Final = (320, 2048)


def preview_of_text(text: str, *, most: int) -> str:
    """White space is one space."""
    shown = ""
    for chars in _LOOK_AT_CHARS:
        head = text[:chars]
        if not head.isascii():
            head = _PADDING.sub("", head)
        shown = " ".join(head.split())
        if len(shown) > most or len(text) <= chars:
            break
    return shown if len(shown) <= most else shown[:most].rstrip()


def text_of_html(html: str, *, look_at: int) -> str:
    """The words of the first `look_at` characters, a line for each block (see MimeLimits.preview_html_chars)."""
    try:
        tree = LexborHTMLParser(_BLOCK.sub(r"\n\g<0>", html[:look_at]))
        tree.strip_tags(["head", "style", "script", "title", "template", "noscript", "svg"])
        text = tree.text(separator="")
    except Exception:  # noqa: BLE001 a C parser over hostile input: no words then
        return ""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def preview_of_html(html: str, *, most: int, look_at: int) -> str:
    """The text of the first `look_at` characters (see MimeLimits.preview_html_chars)."""
    try:
        tree = LexborHTMLParser(html[:look_at])
        tree.strip_tags(["head", "style", "script", "title", "template", "noscript", "svg"])
        text = tree.text(separator=" ")
    except Exception:  # noqa: BLE001 a C parser over hostile input: no preview then
        return ""
    return preview_of_text(text, most=most)
