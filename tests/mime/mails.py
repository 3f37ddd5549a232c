"""Small ways to write a mail in a test, and to read what became of it."""

from service.contract import Email, EmailBodyPart
from service.mime import MimeLimits, Parsed, parse

LIMITS = MimeLimits()
INLINE = 256 * 1024


def mail(text: str, *, encoding: str = "utf-8") -> bytes:
    """A mail as the test shows it, with CRLF."""
    return text.encode(encoding).replace(b"\n", b"\r\n")


def read(raw: bytes | str, *, inline_limit: int = INLINE, limits: MimeLimits = LIMITS) -> Parsed:
    data = mail(raw) if isinstance(raw, str) else raw
    return parse(data, received_at=None, limits=limits, inline_limit=inline_limit)


def email_of(raw: bytes | str) -> Email:
    return read(raw).email


def texts(parsed: Parsed) -> list[str]:
    """The bodies shown as text, in order; a part without a value is named by its type."""
    return [_shown(parsed, part) for part in parsed.email.text_body]


def htmls(parsed: Parsed) -> list[str]:
    return [_shown(parsed, part) for part in parsed.email.html_body]


def attached(parsed: Parsed) -> list[str]:
    return [part.name or part.type for part in parsed.email.attachments]


def _shown(parsed: Parsed, part: EmailBodyPart) -> str:
    value = parsed.email.body_values.get(part.part_id or "")
    return part.type if value is None else value.value


def tree(part: EmailBodyPart | None) -> object:
    """Types only: a multipart is (type, [parts])."""
    assert part is not None
    if isinstance(part.sub_parts, list):
        return part.type, [tree(child) for child in part.sub_parts]
    return part.type


def multipart(boundary: str, *parts: str, kind: str = "mixed", header: str = "From: a@example.org\n") -> str:
    """A multipart of parts that are written whole, header and all."""
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'{header}Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'
