"""HTML → tags and texts, one after another. Pure, linear, never raises; no tree is built.

Used for the text of a mail that has HTML alone, and before sanitising. Every tree parser tried is quadratic in depth,
and so is Python's own `html.parser` with tags that never end. Where a tag ends is read as the HTML standard's tokenizer
has it (13.2.5), near enough for words: what is shown is decided by who reads the tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Final

# Each piece stops at a character that the next one begins with: nothing is looked at twice. A quote that nothing closes
# fails once for the rest of the text, as there is no other.
_TOKEN: Final = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"  # a comment
    # A tag: 1 that it closes, 2 its name, 3 its attributes, 4 its end.
    r"|<(/?)([A-Za-z][^\s/>]*+)((?:[^>\"'=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+|[\"'])*+)(>?)"
    r"|<[!?/][^>]*+>?"  # a doctype, or what browsers take for a comment
    r"|([^<]++|<)",  # 5 text
    re.DOTALL,
)
# Elements that have no end (HTML 13.1.2).
VOID: Final = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_ATTRIBUTE: Final = re.compile(r"([^\s\"'>/=]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)))?")
# Elements whose content is no text of the mail; most of them are no HTML inside, so that their end is looked for.
_UNSHOWN: Final = frozenset(
    ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "template", "svg", "math")
)
_END: Final = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _UNSHOWN}
# No element of HTML has a longer name, and no tag of a mail more attributes.
_NAME_CHARS: Final = 32
_ATTRIBUTES: Final = 64


@dataclass(frozen=True, slots=True)
class Token:
    """A text (`name` is ""; entities decoded), or a tag: its name in lower case, `/` before it where it closes."""

    name: str
    text: str


def tokens(html: str) -> Iterator[Token]:
    """What stands in the HTML, but for comments and what is never shown."""
    at, end = 0, len(html)
    while at < end:
        found = _TOKEN.match(html, at)
        if found is None:  # cannot be: any character is a text
            return
        at = found.end()
        if found[5] is not None:
            yield Token("", unescape(found[5]) if "&" in found[5] else found[5])
        elif found[2] is not None:
            if not found[4]:
                return  # the standard drops a tag that never ends, and so all that follows
            name = found[2].lower()
            if found[1]:
                yield Token(f"/{name[:_NAME_CHARS]}", "")
            elif name in _UNSHOWN:
                closed = _END[name].search(html, at)
                if closed is None:
                    return
                at = html.find(">", closed.end()) + 1
                if not at:
                    return
            else:
                yield Token(name[:_NAME_CHARS], found[3])


def attributes(text: str) -> dict[str, str]:
    """Of a tag: names in lower case, values with their entities decoded; the first of a name counts."""
    out: dict[str, str] = {}
    for count, found in enumerate(_ATTRIBUTE.finditer(text)):
        if count >= _ATTRIBUTES:
            break
        value = found[2] or found[3] or found[4] or ""
        out.setdefault(found[1].lower(), unescape(value) if "&" in value else value)
    return out
