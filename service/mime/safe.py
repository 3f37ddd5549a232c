"""HTML of a mail → HTML that may be shown: no script, nothing loaded from elsewhere. Pure, linear, never raises.

Sanitised by nh3 (ammonia, a list of what is allowed). Before it every element is closed and nests at most so deep: its
parser takes quadratic time for depth, and for formatting that is left open.
"""

import re
from html import escape
from typing import Final

import nh3

from service.mime.markup import VOID, attributes, tokens

# Newsletters nest 60 deep, browsers stop at 512.
_DEPTH: Final = 128
# What mail looks like without its styles from elsewhere; `style` has no URL left (see _STYLES).
_TAGS: Final = frozenset(
    "a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd"
    " del dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark"
    " nav ol p pre q rp rt ruby s samp section small span strike strong sub sup table tbody td tfoot th thead time"
    " tr tt u ul var wbr".split()
)
_EVERYWHERE: Final = frozenset("align bgcolor color dir height lang style title valign width".split())
_ATTRIBUTES: Final = {
    "*": set(_EVERYWHERE),
    "a": {"href", "name"},
    "img": {"src", "alt", "border"},
    "table": {"border", "cellpadding", "cellspacing"},
    "td": {"colspan", "rowspan", "nowrap"},
    "th": {"colspan", "rowspan", "nowrap", "scope"},
    "col": {"span"},
    "colgroup": {"span"},
    "font": {"face", "size"},
    "ol": {"start", "type"},
    "blockquote": {"type"},
    "time": {"datetime"},
}
# Properties that cannot load anything: none of them takes a URL.
_STYLES: Final = frozenset(
    "background-color border border-bottom border-collapse border-color border-left border-radius border-right"
    " border-spacing border-style border-top border-width color direction display font font-family font-size"
    " font-style font-variant font-weight height letter-spacing line-height margin margin-bottom margin-left"
    " margin-right margin-top max-height max-width min-height min-width padding padding-bottom padding-left"
    " padding-right padding-top table-layout text-align text-decoration text-indent text-transform vertical-align"
    " white-space width word-break word-spacing word-wrap".split()
)
# Functions of such a value; url() and its like are dropped with all that the declaration says, as is what is escaped.
_FUNCTION: Final = re.compile(r"([A-Za-z-]*)\(")
_FUNCTIONS: Final = frozenset(("rgb", "rgba", "hsl", "hsla", "calc", "min", "max", "clamp"))
# An image may be one of the mail's own parts (RFC 2392).
_SCHEMES: Final = frozenset(("http", "https", "mailto", "tel", "cid"))


def _filtered(tag: str, name: str, value: str) -> str | None:
    if tag == "img" and name == "src":
        return value if value.lower().startswith("cid:") else None
    if name == "style" and ("(" in value or "\\" in value):
        return ";".join(piece for piece in value.split(";") if _is_plain(piece))
    return value


def _is_plain(declaration: str) -> bool:
    return "\\" not in declaration and all(found[1].lower() in _FUNCTIONS for found in _FUNCTION.finditer(declaration))


def safe_html(html: str) -> str:
    """What may be shown. A link leads where it led, but opens without telling where from."""
    return nh3.clean(
        balanced(html),
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        attribute_filter=_filtered,
        url_schemes=set(_SCHEMES),
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
        filter_style_properties=set(_STYLES),
    )


def balanced(html: str) -> str:
    """The same with every element closed in its order, nested at most _DEPTH deep; comments and scripts left out."""
    out: list[str] = []
    stack: list[str] = []
    for token in tokens(html):
        name = token.name
        if not name:
            out.append(escape(token.text, quote=False))
        elif name[0] == "/":
            if name[1:] in stack:
                while (last := stack.pop()) != name[1:]:
                    out.append(f"</{last}>")
                out.append(f"<{name}>")
        elif name in _TAGS and len(stack) < _DEPTH:
            found = attributes(token.text) if token.text.strip("/ \t\r\n") else {}
            words = "".join(f' {key}="{escape(value)}"' for key, value in found.items())
            out.append(f"<{name}{words}>")
            if name not in VOID:
                stack.append(name)
    out += [f"</{name}>" for name in reversed(stack)]
    return "".join(out)
