"""Header fields whose value is no free text, as a request gives them: what cannot be written. Pure. Used by checks.py.

RFC 2047 5: nobody reads an encoded word in an address, a URL, or a keyword, and a value with one in it is lost to its
readers. So these are written as they are given, but for the words before a list's id, which are a phrase.
"""

import re
from collections.abc import Mapping
from typing import Final

from service.contract.listed import LIST_FIELDS, LIST_ID, check_list_fields
from service.contract.problems import Wrong

STRUCTURED_FIELDS: Final = LIST_FIELDS | frozenset(
    "archived-at authentication-results autocrypt auto-submitted content-language deferred-delivery"
    " disposition-notification-options disposition-notification-to errors-to expires importance mail-followup-to"
    " mail-reply-to precedence priority resent-cc resent-date resent-from resent-message-id resent-reply-to"
    " resent-sender resent-to return-receipt-to sensitivity solicitation supersedes tls-required".split()
)
# RFC 5322 2.1.1: 998 in a line, which holds the longest of these names, too.
WORD_LIMIT_CHARS: Final = 950
_PLAIN: Final = re.compile(r"[ -~\t]*")


def check_structured(headers: Mapping[str, str], wrong: Wrong) -> None:
    """What is wrong with those of a message's header fields."""
    for name, value in headers.items():
        if name.lower() not in STRUCTURED_FIELDS or name.lower() == LIST_ID:
            continue
        if not _PLAIN.fullmatch(value):
            words = "ASCII alone is read in this field: write a name as an encoded word (RFC 2047), in a URL use %"
            wrong(f"headers.{name}", words)
        elif any(len(word) > WORD_LIMIT_CHARS for word in re.findall(r"[ \t]*[^ \t]+", value)):
            wrong(
                f"headers.{name}",
                f"{WORD_LIMIT_CHARS} characters without a space are what fits into a line (RFC 5322 2.1.1)",
            )
    check_list_fields(headers, wrong)
