"""Header fields of mailing lists that a request gives: what is wrong with them. Pure. Used by structured.py.

Mail programs and providers act on them: one that cannot be read leaves its reader no way out but the spam button.
RFC 2369 (List-Unsubscribe and its like), RFC 2919 (List-Id), RFC 8058 (one click).
"""

import re
from collections.abc import Mapping
from typing import Final

from service.contract.problems import Wrong

_URL_FIELDS: Final = frozenset(
    "list-help list-unsubscribe list-subscribe list-post list-owner list-archive".split(),
)
UNSUBSCRIBE: Final = "list-unsubscribe"
ONE_CLICK_FIELD: Final = "list-unsubscribe-post"
LIST_ID: Final = "list-id"
LIST_FIELDS: Final = _URL_FIELDS | {ONE_CLICK_FIELD, LIST_ID}
_ONE_CLICK: Final = "List-Unsubscribe=One-Click"
# RFC 2369 2: URLs in angle brackets, parted by commas; comments may stand between.
_TOKEN: Final = re.compile(r"<(?P<url>[^<>]*)>|\([^()<>]*\)|[ \t]+|(?P<comma>,)")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2000}")
# RFC 2369 3.4: nobody may write to the list.
_NO_POSTING: Final = re.compile(r"NO[ \t]*(?:\([^()<>]*\))?")
# RFC 2919 3: a phrase may come first; the id has a dot, no white space, and 255 characters at the most.
_LIST_ID: Final = re.compile(
    r"[^<>]{0,500}<(?=[^>]{1,255}>)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)+>"
)


def check_list_fields(headers: Mapping[str, str], wrong: Wrong) -> None:
    """What is wrong with those of a message's header fields."""
    values = {name.lower(): value.strip(" \t") for name, value in headers.items()}
    for name in headers:
        lower, field = name.lower(), f"headers.{name}"
        value = values[lower]
        if lower in _URL_FIELDS:
            posting = lower == "list-post" and _NO_POSTING.fullmatch(value)
            if not posting and not _urls(value):
                wrong(
                    field,
                    "URLs in angle brackets are wanted, parted by commas,"
                    " such as <https://example.org/u/4711>, <mailto:leave@example.org>",
                )
        elif lower == LIST_ID and not _LIST_ID.fullmatch(value):
            wrong(field, "a name with a dot in angle brackets is wanted, such as News <news.example.org>")
        elif lower == ONE_CLICK_FIELD:
            if value != _ONE_CLICK:
                wrong(field, f"`{_ONE_CLICK}` is wanted, and nothing else")
            elif not any(url.lower().startswith("https:") for url in _urls(values.get(UNSUBSCRIBE, ""))):
                # RFC 8058 3.1: List-Unsubscribe MUST contain one HTTPS URI.
                wrong(field, "wants an https URL in `headers.List-Unsubscribe` beside it")


def _urls(value: str) -> list[str]:
    """Those of a field; none where it is no list of them."""
    found: list[str] = []
    at, due = 0, True
    while at < len(value):
        token = _TOKEN.match(value, at)
        if token is None:
            return []
        at = token.end()
        if (url := token["url"]) is not None:
            if not due or not _URL.fullmatch(url):
                return []
            found.append(url)
            due = False
        elif token["comma"]:
            if due:
                return []
            due = True
    return [] if due else found
