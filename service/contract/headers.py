"""Header fields of a request, and its subject: what is wrong with them. Pure. Used by checks.py."""

import re
from typing import Final

from service.contract.problems import Wrong
from service.contract.requests import SendRequest
from service.contract.structured import check_structured

HEADERS_LIMIT: Final = 100
# RFC 5322 2.1.1: 998 characters a line; a long field is folded, but an extra header longer than this is a mistake.
HEADER_VALUE_LIMIT_CHARS: Final = 8000
# Of 70 characters each they are still a header that relays take whole.
REFERENCES_LIMIT: Final = 1000
BREAKS: Final = re.compile(r"[\r\n\0]")
_NAME: Final = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 2.2: printable ASCII without the colon
# What mailbus sets itself, from the request's own fields.
_OURS: Final = frozenset(
    "from sender to cc bcc reply-to subject date message-id in-reply-to references mime-version content-type"
    " content-transfer-encoding content-disposition content-id return-path received dkim-signature".split()
)


def check_headers(request: SendRequest, wrong: Wrong) -> None:
    """What is wrong with those that `headers` names, and with those that have a field of their own."""
    check_line("subject", request.subject, wrong)
    if len(request.headers) > HEADERS_LIMIT:
        wrong("headers", f"{len(request.headers)} of them; at most {HEADERS_LIMIT}")
    seen: set[str] = set()
    for name, value in request.headers.items():
        # The name comes from outside: shown only where it is one.
        field = f"headers.{name}" if _NAME.fullmatch(name) else "headers"
        if not _NAME.fullmatch(name):
            wrong(field, "a header's name is 1 to 76 printable ASCII characters without a colon")
        elif name.lower() in _OURS:
            wrong(field, "mailbus sets this header from the request's own fields")
        elif name.lower() == "resent-bcc":
            wrong(
                field, "every recipient would read it (RFC 5322 3.6.6): name who gets the mail in `bcc` or `envelope`"
            )
        elif name.lower() in seen:
            wrong(field, "stands here twice: the case of a name says nothing")
        seen.add(name.lower())
        check_line(field, value, wrong)
    if not request.split:
        check_structured(request.headers, wrong)
    if len(request.references) > REFERENCES_LIMIT:
        wrong(
            "references", f"{len(request.references)} of them; at most {REFERENCES_LIMIT}: the first and the last ones"
        )
    ids = [("inReplyTo", request.in_reply_to)] if request.in_reply_to is not None else []
    for field, value in [*ids, *((f"references[{i}]", ref) for i, ref in enumerate(request.references))]:
        if not re.fullmatch(r"[!-;=?-~]{1,900}", value or ""):
            wrong(field, "a bare message id is wanted, without < and >")


def check_line(field: str, text: str, wrong: Wrong) -> None:
    """What is wrong with a text that stands in the header."""
    if BREAKS.search(text):
        wrong(field, "CR, LF and NUL are not allowed")
    elif len(text) > HEADER_VALUE_LIMIT_CHARS:
        wrong(field, f"longer than {HEADER_VALUE_LIMIT_CHARS} characters")
