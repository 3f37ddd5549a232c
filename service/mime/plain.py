"""HTML → the text that a reader sees, as a plain mail would have it. Pure, linear, never raises.

Blocks are lines, paragraphs have an empty line between them, items a dash, quotes `> ` (so that what is quoted can be
told apart), cells a space. Where a link leads and what an image shows stays in the HTML; an image's words are kept.
"""

import re
from typing import Final

from service.mime.markup import VOID, attributes, tokens

_LINES: Final = frozenset(
    "address article aside blockquote body center dd div dl dt fieldset figcaption figure footer form header html"
    " legend li main nav ol option pre section select table tbody tfoot thead tr ul".split()
)
_PARAGRAPHS: Final = frozenset("p h1 h2 h3 h4 h5 h6 hr".split())
_CELLS: Final = frozenset(("td", "th"))
_WHITE: Final = re.compile(r"[ \t\r\n\f]+")
# Zero-width and soft characters that newsletters pad their first line with.
_PADDING: Final = re.compile("[\u00ad\u034f\u061c\u200b\u200e\u200f\u2007\u2060-\u2064\ufeff\x00-\x08\x0e-\x1f]+")
_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_STYLE: Final = re.compile(r"style|hidden", re.IGNORECASE)
# Deeper quotes are marked like this one: each level is two characters on every line.
_QUOTES: Final = 10


class _Writer:
    """Lines as they grow."""

    def __init__(self, most: int) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.space = False
        self.blank = -1  # the quotes round an empty line that is to come, -1: none is
        self.quotes = 0
        self.chars = 0
        self.most = most

    def words(self, text: str) -> None:
        """White space is one space, and none at a line's end."""
        if text[:1].isspace():
            self.space = True
        shown = _WHITE.sub(" ", text).strip(" ")
        if not shown:
            return
        if self.space and self.line:
            shown = " " + shown
        self.line.append(shown)
        self.chars += len(shown)
        self.space = text[-1:].isspace()

    def as_it_is(self, text: str) -> None:
        """Within <pre>: every line end counts."""
        first, *rest = text.replace("\r\n", "\n").split("\n")
        self.line.append(first)
        for line in rest:
            self.end(always=True)
            self.line.append(line)
        self.chars += len(text)

    def end(self, *, always: bool = False) -> None:
        """The line ends, if there is one; `always`: or an empty one."""
        line = "".join(self.line).rstrip()
        self.line.clear()
        self.space = False
        if not line and not always:
            return
        mark = "> " * min(self.quotes, _QUOTES)
        if self.blank >= 0 and self.lines and self.lines[-1].strip("> "):
            self.lines.append(("> " * min(self.quotes, self.blank, _QUOTES)).rstrip())
        self.blank = -1
        if not line and self.lines and not self.lines[-1].strip("> "):
            return  # one empty line says as much as many
        self.lines.append((mark + line).rstrip())
        self.chars += len(mark) + 1

    @property
    def full(self) -> bool:
        return self.chars >= self.most


def text_of_html(html: str, *, most: int) -> str:
    """At most about `most` characters."""
    out = _Writer(most)
    hidden, within = "", 0  # the element that is not shown, and how many of its name are open in it
    pre = 0
    for token in tokens(html):
        name = token.name
        if hidden:
            if name == hidden:
                within += 1
            elif name == f"/{hidden}":
                within -= 1
                hidden = hidden if within else ""
            continue
        if not name:
            if pre:
                out.as_it_is(token.text)
            else:
                out.words(token.text)
            if out.full:
                break
        elif name[0] == "/":
            pre -= name == "/pre" and pre > 0
            _close(out, name[1:])
        elif name not in VOID and _is_hidden(token.text):
            hidden, within = name, 1
        else:
            pre += name == "pre"
            _open(out, name, token.text)
    out.end()
    return _PADDING.sub("", "\n".join(out.lines)).strip("\n")[:most]


def _is_hidden(text: str) -> bool:
    if not text or _STYLE.search(text) is None:
        return False
    found = attributes(text)
    return "hidden" in found or _HIDDEN.search(found.get("style", "")) is not None


def _open(out: _Writer, name: str, text: str) -> None:
    if name == "br":
        out.end(always=True)
    elif name in _PARAGRAPHS:
        out.end()
        out.blank = out.quotes
    elif name in _CELLS:
        out.space = True
    elif name == "img":
        out.words(attributes(text).get("alt", ""))
    elif name in _LINES:
        out.end()
        if name == "blockquote":
            out.quotes += 1
        elif name == "li":
            out.line.append("- ")


def _close(out: _Writer, name: str) -> None:
    if name in _PARAGRAPHS:
        out.end()
        out.blank = out.quotes
    elif name in _CELLS:
        out.space = True
    elif name in _LINES:
        out.end()
        if name == "blockquote" and out.quotes:
            out.quotes -= 1
