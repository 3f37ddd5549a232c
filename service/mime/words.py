"""A header field's raw value → text: unfolding and encoded words. Pure, linear, never raises.

RFC 2047, read as leniently as mail programs do: words inside other text, inside quotes, with spaces or a fold in them.
"""

import re
import unicodedata
from binascii import a2b_qp
from typing import Final

from service.mime.charset import REPLACEMENT, decode
from service.mime.transfer import decode_base64

# RFC 2047 4.2 has "?" encoded in Q; many senders leave it, as in `What's_new??=`. Another word's "=?" ends the search,
# so that it is linear. What must not follow is looked for first: tests/mime/test_patterns.py says why.
_WORD: Final = re.compile(r"=\?([^?\s]{1,75})\?([bBqQ])\?([^?]*+(?:(?<!=)(?=\?[^=])\?[^?]*+)*+)\?=")
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")
_FOLD_WITHIN: Final = re.compile(r"\r?\n[ \t]+")
# Tabs are white space; a line break becomes a space.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BREAK: Final = re.compile(r"[\r\n]+")
# Normalization sorts combining marks in quadratic time: 1 ms for 1,000 of them, 2 s for 64,000.
_COMPOSED_CHARS: Final = 1024


def unfold(raw: str) -> str:
    """RFC 5322 2.2.3: a line break before white space is nothing; any other is a space."""
    if "\n" not in raw and "\r" not in raw:
        return raw.strip()
    return _BREAK.sub(" ", _FOLD.sub("", raw)).strip()


def decode_text(raw: str, *, words: int) -> str:
    """RFC 8621 4.1.2.2, the Text form. At most `words` encoded words are decoded; the rest stay as they are."""
    if "=?" not in raw:
        return composed(unfold(raw))
    if "\n" in raw:
        # RFC 2047 2 allows no white space in a word: whoever folded within one put it there.
        raw = _WORD.sub(lambda found: _FOLD_WITHIN.sub("", found[0]), raw)
    text = decode_words(unfold(raw), words=words)
    if "\n" in text or "\r" in text:
        text = _BREAK.sub(" ", text).strip()  # RFC 2047 has no word hold one; nobody expects a field of two lines
    return composed(text)


def composed(text: str) -> str:
    """Normal form C (RFC 8621 4.1.2.2), but for what is too long to be meant for reading."""
    if text.isascii() or len(text) > _COMPOSED_CHARS:
        return text
    return unicodedata.normalize("NFC", text)


def decode_words(text: str, *, words: int) -> str:
    """Every encoded word in `text` decoded; white space between two of them is dropped (RFC 2047 6.2)."""
    out: list[str] = []
    end = 0
    # Neighbours in one charset are joined as bytes: many senders cut within a character.
    charset = ""
    pending: list[bytes] = []
    for found in _WORD.finditer(text):
        if words <= 0:
            break
        words -= 1
        between = text[end : found.start()]
        # RFC 2231 5: charset*language.
        name = found[1].partition("*")[0]
        if pending and (between.strip() or name.lower() != charset):
            out.append(_text(pending, charset))
            pending = []
            if between.strip():
                out.append(between)
        elif not pending:
            out.append(between)
        charset = name.lower()
        pending.append(_bytes(found[2], found[3]))
        end = found.end()
    if pending:
        out.append(_text(pending, charset))
    out.append(text[end:])
    return "".join(out).replace("\0", REPLACEMENT)


def _text(pieces: list[bytes], charset: str) -> str:
    """RFC 8621 4.1.2.2: control characters encoded per RFC 2047 are dropped from the decoded value."""
    return _CONTROLS.sub("", decode(b"".join(pieces), charset).text)


def _bytes(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if encoding in "bB":
        return decode_base64(data).data
    return a2b_qp(data.replace(b" ", b"_"), header=True)
