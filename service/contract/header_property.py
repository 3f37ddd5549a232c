"""`header:…` of `get`: which field of a message, in which form, and whether all of that name. RFC 8621 4.1.3. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "header:"
# RFC 5322 2.2: printable ASCII without the colon.
_NAME: Final = re.compile(r"[!-9;-~]{1,255}")


class HeaderForm(StrEnum):
    """RFC 8621 4.1.2."""

    RAW = "asRaw"
    TEXT = "asText"
    ADDRESSES = "asAddresses"
    GROUPS = "asGroupedAddresses"
    MESSAGE_IDS = "asMessageIds"
    DATE = "asDate"
    URLS = "asURLs"


@dataclass(frozen=True, slots=True)
class HeaderProperty:
    """`property`: as it was asked for, which is how it is answered; `name`: of the field, in lower case."""

    property: str
    name: str
    form: HeaderForm
    every: bool


_RESENT: Final = ("resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc", "resent-bcc")
# RFC 8621 4.1.2.2-4.1.2.7: the fields of RFC 5322 and RFC 2369 have forms of their own; any other may be read as any.
_FORM_OF: Final = {
    **dict.fromkeys(("subject", "comments", "keywords", "list-id"), HeaderForm.TEXT),
    **dict.fromkeys(("from", "sender", "reply-to", "to", "cc", "bcc", *_RESENT), HeaderForm.ADDRESSES),
    **dict.fromkeys(("message-id", "in-reply-to", "references", "resent-message-id"), HeaderForm.MESSAGE_IDS),
    **dict.fromkeys(("date", "resent-date"), HeaderForm.DATE),
    **dict.fromkeys(
        [f"list-{what}" for what in ("help", "unsubscribe", "subscribe", "post", "owner", "archive")], HeaderForm.URLS
    ),
    **dict.fromkeys(("return-path", "received"), HeaderForm.RAW),
}


def header_property(text: str) -> HeaderProperty:
    """`header:NAME[:FORM][:all]`. Raises ValueError, which says what is wrong."""
    name, *rest = text.removeprefix(PREFIX).split(":")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text[:100]}: no name of a header field")
    every = rest[-1:] == ["all"]
    forms = rest[:-1] if every else rest
    if len(forms) > 1 or (forms and forms[0] not in set(HeaderForm)):
        known = ", ".join(HeaderForm)
        raise ValueError(f"{text[:100]}: header:NAME, then a form ({known}), then `all`; both may be left out")
    form = HeaderForm(forms[0]) if forms else HeaderForm.RAW
    own = _FORM_OF.get(name.lower())
    # RFC 8621 4.1.2.4: wherever addresses stand they may stand in groups.
    also = {HeaderForm.GROUPS} if own is HeaderForm.ADDRESSES else set()
    if own is not None and form not in {own, HeaderForm.RAW, *also}:
        raise ValueError(f"{text[:100]}: {name} is read {', '.join([own, *also])}, or raw")
    return HeaderProperty(text, name.lower(), form, every)
