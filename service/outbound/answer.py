"""A request that replies to an announced message or passes it on → a request that needs no other. Pure.

Used by originals.py, which finds the message. RFC 5322 3.6.4 (In-Reply-To, References), 3.6.5 (`Re: `). RFC 3834 2:
what no person wrote is not answered, for two programs would never end. What is quoted is text: a stranger's HTML goes
into no mail of ours.
"""

import html
import re
from collections.abc import Container, Iterable, Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from service.contract import (
    BLOB_ID,
    Address,
    Attachment,
    Email,
    EmailAddress,
    Kind,
    Problem,
    Recipient,
    SendRequest,
    address_problem,
    media_type,
)
from service.mime import MimeLimits, text_of_html

_PREFIX: Final = {"Re: ": re.compile(r"(?i)re\s*:"), "Fwd: ": re.compile(r"(?i)fwd?\s*:")}
_ID: Final = re.compile(r"[!-;=?-~]{1,900}")
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f]+")
# The first names the conversation, the last ones the way here.
REFERENCES_LIMIT: Final = 100
SUBJECT_LIMIT_CHARS: Final = 900
NAME_LIMIT_CHARS: Final = 255
CUT: Final = "[…]"
AUTOMATIC: Final = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.DELIVERED, Kind.RECEIPT, Kind.AUTOREPLY})
NOBODY: Final = "nobody to answer: the message names no sender, or none but the account itself: give `to`"
_BODY_END: Final = re.compile(r"</body\s*>", re.IGNORECASE)


def answered(request: SendRequest, original: Email, own: str) -> SendRequest:
    """The request with everything in it that it takes from the message. `own`: the account's address."""
    if request.reply is not None:
        return _replied(request, original, own)
    return _forwarded(request, original)


def unfit(request: SendRequest, original: Email, own: str) -> list[Problem]:
    """Why a message cannot be answered, or passed on."""
    if request.forward is not None and original.mailbus.problem is not UNSET:
        return [Problem("forward.emailId", "the message was not read whole: send its raw bytes by `rawBlobId`")]
    if request.reply is None or request.recipients():
        return []
    if original.mailbus.kind in AUTOMATIC or _has_null_path(original):
        # The null path, too, says that nobody is to be written to (RFC 3834 2, RFC 5321 4.5.5).
        words = "not to be answered, for no person wrote it (RFC 3834): give `to` where somebody is to be written to"
        return [Problem("reply.emailId", words)]
    if not any(_answerees(request, original, own)):
        return [Problem("reply.emailId", NOBODY)]
    return []


def _replied(request: SendRequest, original: Email, own: str) -> SendRequest:
    asked = request.reply
    to, cc = list(request.to), list(request.cc)
    if not request.recipients():
        answerees, cc = _answerees(request, original, own)
        to = [Recipient(one.email, one.name) for one in answerees]
    ids = _ids(original.message_id)
    before = _ids(original.references) or (_ids(original.in_reply_to) if len(original.in_reply_to or []) == 1 else [])
    text, page = request.text, request.html
    if asked is not None and asked.quote:
        quoted = _text_of(original)
        text, page = _below(request, f"{_wrote(original)}\n{_quoted(quoted)}", f"{_wrote(original)}\n", quoted)
    return msgspec.structs.replace(
        request,
        reply=None,
        to=to,
        cc=cc,
        subject=request.subject or _subject("Re: ", original),
        text=text,
        html=page,
        in_reply_to=ids[0] if ids else None,
        references=_chain([*before, *ids[:1]]),
    )


def _forwarded(request: SendRequest, original: Email) -> SendRequest:
    head = "---------- Forwarded message ----------\n" + "".join(
        f"{name}: {value}\n" for name, value in _shown(original) if value
    )
    body = _text_of(original)
    text, page = _below(request, f"{head}\n{body}", head, body)
    files = [*request.attachments]
    if request.forward is not None and request.forward.attachments:
        files += [
            Attachment(type=_type(part.type), name=_name(part.name), blob_id=part.blob_id)
            for part in original.attachments
            if part.blob_id is not None and BLOB_ID.fullmatch(part.blob_id)
        ]
    return msgspec.structs.replace(
        request,
        forward=None,
        subject=request.subject or _subject("Fwd: ", original),
        text=text,
        html=page,
        attachments=files,
        references=_chain([*_ids(original.references), *_ids(original.message_id)[:1]]),
    )


def _answerees(request: SendRequest, original: Email, own: str) -> tuple[list[Address], list[Address]]:
    """Whom an answer is to, and who gets a copy: never the account itself, which would be asked to answer that."""
    senders = original.from_ or []
    to = original.reply_to or senders
    # An answer to what the account itself wrote goes where that went; to what nobody wrote, nowhere.
    ours = bool(senders) and all(one.email.lower() == own.lower() for one in (*senders, *to))
    if ours:
        to = original.to or []
    others = [*(original.to or []), *(original.cc or [])] if request.reply is not None and request.reply.all else []
    answerees = _usable(to, without={own.lower()})
    if not answerees and not ours:
        return [], []
    return answerees, _usable(others, without={own.lower(), *(one.email.lower() for one in answerees)})


# -- of the message -----------------------------------------------------------------------------------------------


def _has_null_path(original: Email) -> bool:
    """RFC 5321 4.4: the server that delivers puts Return-Path on top; one further down is the sender's own."""
    path = next((one.value for one in original.headers if one.name.lower() == "return-path"), "")
    return path.strip() == "<>"


def _usable(addresses: Iterable[EmailAddress], *, without: Container[str]) -> list[Address]:
    """Each address once, without those that nobody can send to: a stranger wrote them. `without`: in lower case."""
    found = {one.email.lower(): one for one in addresses if address_problem(one.email) is None}
    return [Address(one.email, _line(one.name) or None) for email, one in found.items() if email not in without]


def _ids(ids: Sequence[str] | None) -> list[str]:
    return [id for id in ids or () if _ID.fullmatch(id)]


def _chain(ids: Sequence[str]) -> list[str]:
    once = list(dict.fromkeys(ids))
    return once if len(once) <= REFERENCES_LIMIT else [once[0], *once[1 - REFERENCES_LIMIT :]]


def _line(text: str | None) -> str:
    return " ".join(_BREAKS.sub(" ", text or "").split())[:SUBJECT_LIMIT_CHARS]


def _subject(prefix: str, original: Email) -> str:
    subject = _line(original.subject)
    return subject if _PREFIX[prefix].match(subject) else f"{prefix}{subject}".rstrip()


def _name(name: str | None) -> str | None:
    return _line(name)[:NAME_LIMIT_CHARS] or None


def _type(type: str) -> str:
    return type if media_type(type) is not None else "application/octet-stream"


def _people(people: Sequence[EmailAddress] | None) -> str:
    return ", ".join(f"{_line(one.name)} <{one.email}>" if one.name else one.email for one in people or ())


def _shown(original: Email) -> list[tuple[str, str]]:
    return [
        ("From", _people(original.from_)),
        ("Date", _date(original)),
        ("Subject", _line(original.subject)),
        ("To", _people(original.to)),
        ("Cc", _people(original.cc)),
    ]


def _date(original: Email) -> str:
    moment = original.sent_at or original.received_at
    return f"{moment:%Y-%m-%d %H:%M %z}" if moment is not None else ""


def _wrote(original: Email) -> str:
    date = _date(original)
    return f"{f'On {date}, ' if date else ''}{_people((original.from_ or [])[:1]) or 'somebody'} wrote:"


def _text_of(original: Email) -> str:
    """Its words, as far as they ride in the event."""
    texts: list[str] = []
    for part in original.text_body:
        value = original.body_values.get(part.part_id or "")
        if value is None:
            continue
        words = value.value
        if part.type == "text/html":
            words = text_of_html(words, look_at=MimeLimits().preview_html_chars)
        texts.append(f"{words.rstrip()}\n{CUT}" if value.is_truncated else words.rstrip())
    return "\n".join(texts)


# -- of the answer ------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """RFC 3676 4.5: a sign before each line, a space after the first one alone."""
    return "\n".join(f">{line}" if line.startswith(">") else f"> {line}".rstrip() for line in text.splitlines())


def _below(request: SendRequest, in_text: str, head: str, body: str) -> tuple[str | None, str | None]:
    """Text and HTML of the request with what comes below, in those of the two that it has."""
    text, page = request.text, request.html
    if text is not None or page is None:
        text = f"{text.rstrip()}\n\n{in_text}\n" if text else f"{in_text}\n"
    if page is not None:
        lines = [html.escape(part).replace("\n", "<br>\n") for part in (head, body)]
        block = f'<div>{lines[0]}</div>\n<blockquote type="cite">{lines[1]}</blockquote>\n'
        ends = [found.start() for found in _BODY_END.finditer(page)]
        at = ends[-1] if ends else len(page)
        page = f"{page[:at]}\n{block}{page[at:]}"
    return text, page
