"""A message's bytes → what mailbus sees in it; and `email`, mail-parser, flufl.bounce, where they are there."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import UNSET

from service.contract import EmailAddress
from service.meaning import read_meaning
from service.mime import MimeLimits, parse
from tests.corpora.seen import Seen, hash_of

Reader = Callable[[bytes], Seen]
INLINE = 10 * 1024 * 1024


def mailbus(raw: bytes) -> Seen:
    """What stands in the event."""
    parsed = parse(
        raw,
        received_at=None,
        limits=MimeLimits(),
        inline_limit=INLINE,
        meaning=lambda email, values, contents: read_meaning(email, values, contents, ""),
    )
    email = parsed.email
    texts = [email.body_values[part.part_id or ""].value for part in email.text_body if part.type == "text/plain"]
    attached = [hash_of(parsed.blobs[part.part_id or ""]) for part in email.attachments]
    known = {part.part_id for part in email.attachments}
    shown = {part.part_id: part for part in (*email.text_body, *email.html_body) if not part.type.startswith("text/")}
    media = [hash_of(parsed.blobs[part_id or ""]) for part_id in shown if part_id not in known]
    binary = [hash_of(parsed.blobs[p.part_id or ""]) for p in email.attachments if not p.type.startswith("text/")]
    # Without enclosed messages, which not everybody gives as they came.
    files = [
        hash_of(parsed.blobs[part.part_id or ""]) for part in email.attachments if not part.type.startswith("message/")
    ]
    parts = [hash_of(parsed.blobs[p.part_id or ""]) for p in email.attachments if "." not in (p.part_id or "")]
    named = [
        hash_of(parsed.body.contents.get(part.part_id or "", b""))
        for part in email.text_body
        if part.cid and parsed.body is not None
    ]
    reports = [] if email.mailbus.reports is UNSET else email.mailbus.reports
    wanted = [one.original_recipient.lower() for one in reports if isinstance(one.original_recipient, str)]
    return Seen(
        subject=email.subject or "",
        from_=_emails(email.from_),
        to=_emails(email.to),
        date=email.sent_at,
        message_id=(email.message_id or [None])[0],
        text="\n".join(texts),
        attachments=attached,
        kind=email.mailbus.kind.value,
        recipients=[one.recipient.lower() for one in reports],
        reason=[str(one.reason) for one in reports if one.reason is not UNSET],
        hard=[one.hard for one in reports if isinstance(one.hard, bool)],
        also={
            "recipients": wanted,
            "shown": attached + media,
            "binary": binary,
            "parts": parts,
            "files": files,
            "texts with ids": named,
        },
    )


def _emails(people: list[EmailAddress] | None) -> list[str]:
    return [one.email.lower() for one in people or [] if one.email]


def stdlib(raw: bytes) -> Seen:
    """Python's own, with its modern policy; its exceptions are its answers."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)

    def header(name: str) -> str:
        return str(message.get(name) or "")

    def people(name: str) -> list[str]:
        found = message.get(name)
        return [] if found is None else [one.addr_spec.lower() for one in found.addresses]

    texts, attached = [], []
    for part in _leaves(message):
        if part.get_content_type() == "text/plain" and not part.is_attachment():
            texts.append(str(part.get_content()))
        elif part.get_content_maintype() == "message":
            continue  # its bytes as they came are not to be had
        elif part.get_content_type() != "text/html" or part.is_attachment():
            data = part.get_payload(decode=True)
            attached.append(hash_of(data if isinstance(data, bytes) else b""))
    date = header("date")
    return Seen(
        subject=header("subject"),
        from_=people("from"),
        to=people("to"),
        date=parsedate_to_datetime(date) if date else None,
        message_id=header("message-id").strip().strip("<>"),
        text="\n".join(texts),
        attachments=attached,
    )


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """Its parts that are no multiparts; an enclosed message is one of them, as in JMAP."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting += [one for one in reversed(list(part.iter_parts())) if isinstance(one, EmailMessage)]
        else:
            yield part


def mail_parser(raw: bytes) -> Seen:
    """mail-parser, of PyPI."""
    module: Any = importlib.import_module("mailparser")
    mail = module.parse_from_bytes(raw)
    return Seen(
        subject=mail.subject or "",
        from_=[address.lower() for _, address in mail.from_ if address],
        to=[address.lower() for _, address in mail.to if address],
        date=mail.date.astimezone() if mail.date else None,
        message_id=(mail.message_id or "").strip("<> "),
        text="\n".join(mail.text_plain),
        attachments=[],
    )


def fast_mail_parser(raw: bytes) -> Seen:
    """fast-mail-parser, of PyPI: Rust's mailparse, which has nothing in common with the others."""
    module: Any = importlib.import_module("fast_mail_parser")
    mail = module.parse_email(raw)
    headers = {name.lower(): values for name, values in mail.headers.items()}
    attached = [hash_of(bytes(one.content)) for one in mail.attachments]
    return Seen(
        subject=mail.subject or "",
        date=parsedate_to_datetime(mail.date) if mail.date else None,
        message_id=(headers.get("message-id") or [""])[-1].strip().strip("<>"),
        text="\n".join(mail.text_plain),
        attachments=attached,
    )


def flufl_bounce(raw: bytes) -> Seen:
    """flufl.bounce, of PyPI: recipients and whether it is a bounce at all."""
    module: Any = importlib.import_module("flufl.bounce")
    temporary, permanent = module.all_failures(message_from_bytes(raw))
    found = {(one if isinstance(one, str) else one.decode("utf-8", "replace")).lower() for one in temporary | permanent}
    return Seen(kind="bounce" if permanent else "delay" if temporary else "message", recipients=sorted(found))


def readers() -> dict[str, Reader]:
    """mailbus first; a peer that is not installed is left out."""
    found: dict[str, Reader] = {"mailbus": mailbus, "stdlib": stdlib}
    if importlib.util.find_spec("mailparser") is not None:
        found["mail-parser"] = mail_parser
    if importlib.util.find_spec("fast_mail_parser") is not None:
        found["fast-mail-parser"] = fast_mail_parser
    if importlib.util.find_spec("flufl") is not None:
        found["flufl.bounce"] = flufl_bounce
    return found
