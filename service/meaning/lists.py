"""Header fields → the mailing list that a mail came through. Pure. RFC 2919, 2369, 8058."""

import re
from typing import Final

from msgspec import UNSET

from service.contract import Kind, MailingList
from service.meaning.fields import URLS

# RFC 2919 3: the id stands in angle brackets, a phrase may come before it.
_IN_BRACKETS: Final = re.compile(r"<([^<>]{1,998})>")
_WHITE: Final = re.compile(r"\s+")
# Folded, a URL may be longer than a line; programs that send newsletters pack 500 to 1,500 characters into one.
_URL_CHARS: Final = 2000
_URL: Final = re.compile(rf"<([^<>]{{1,{_URL_CHARS}}})>")
_LONG_URL: Final = re.compile(rf"<[^<>]{{{_URL_CHARS + 1}}}")
_VALUE_CHARS: Final = _URL_CHARS * (URLS + 1)
_LIST_WORDS: Final = frozenset(("list", "first-class"))
# What a discussion has and a newsletter has not: somewhere to write to, to join, to read what was said.
_DISCUSSION: Final = (
    "mailing-list",
    "x-mailing-list",
    "x-mailman-version",
    "list-archive",
    "list-subscribe",
    "list-owner",
)


def mailing_list(values: dict[str, str]) -> MailingList | None:
    """None where the mail came through none."""
    raw_id, raw_unsubscribe, raw_post = values.get("list-id"), values.get("list-unsubscribe"), values.get("list-post")
    if raw_id is None and raw_unsubscribe is None and raw_post is None:
        return None
    urls = _urls(raw_unsubscribe)
    posts = _urls(raw_post)
    # RFC 8058 3.1: exactly this value, and an https address to send it to.
    asked = values.get("list-unsubscribe-post", "").strip().lower() == "list-unsubscribe=one-click"
    one_click = asked and any(url.lower().startswith("https:") for url in urls)
    if raw_unsubscribe is None and raw_id is None and not posts:
        return None
    return MailingList(
        id=_id(raw_id) or UNSET,
        post=posts[0] if posts else UNSET,
        unsubscribe=urls or UNSET,
        one_click=True if one_click else UNSET,
    )


def is_cut(values: dict[str, str]) -> bool:
    """Whether some URL is too long to be had."""
    for name in ("list-unsubscribe", "list-post"):
        raw = values.get(name, "")
        if len(raw) > _VALUE_CHARS or _LONG_URL.search(raw) is not None:
            return True
        if len(raw) > _URL_CHARS and "<" not in raw:
            return True
    return False


def listed_as(found: MailingList | None, values: dict[str, str]) -> Kind | None:
    """A discussion, a newsletter, or neither."""
    if found is None:
        listed = values.get("precedence", "").strip().lower() == "list" or "mailing-list" in values
        return Kind.LIST if listed else None
    # RFC 2369 3.4: to write to a discussion one sends a mail. It may offer RFC 8058's one click, too.
    if any(url.lower().startswith("mailto:") for url in _urls(values.get("list-post"))):
        return Kind.LIST
    if found.one_click is not UNSET:
        return Kind.NEWSLETTER
    # RFC 2369 3.4: `List-Post: NO` is a list where nobody may answer.
    if found.post is UNSET and "list-post" in values:
        return Kind.NEWSLETTER
    if any(name in values for name in _DISCUSSION) or values.get("precedence", "").strip().lower() in _LIST_WORDS:
        return Kind.LIST
    return Kind.LIST if found.unsubscribe is UNSET else Kind.NEWSLETTER


def _id(raw: str | None) -> str:
    if raw is None:
        return ""
    found = _IN_BRACKETS.search(raw)
    return _WHITE.sub("", found[1] if found is not None else raw[:998])


def _urls(raw: str | None) -> list[str]:
    """RFC 2369 2: URLs in angle brackets, in the order in which they are to be tried."""
    if raw is None:
        return []
    urls: list[str] = []
    for found in _URL.finditer(raw[:_VALUE_CHARS]):
        url = _WHITE.sub("", found[1])
        if ":" in url:
            urls.append(url)
        if len(urls) > URLS:
            break
    if not urls:
        bare = raw.strip()
        if (
            len(bare) <= _URL_CHARS
            and bare.lower().startswith(("https:", "http:", "mailto:"))
            and not _WHITE.search(bare)
        ):
            urls.append(bare)
    return urls
