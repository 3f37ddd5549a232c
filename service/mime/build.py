"""A request to send → the bytes of its mail. Pure and deterministic: the same request gives the same bytes.

Used by outbound, which hands in what must not change between attempts: Message-ID, Date, the boundaries' seed. Out come
CRLF lines and ASCII, but for addresses whose local part is not (RFC 6532). Bcc stands in drafts alone (RFC 5322 3.6.3).
RFC 5322 (header), RFC 2045-2049 (structure), RFC 2183 (disposition), RFC 2387 (related), RFC 2392 (cid).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

from service.contract import (
    LIST_ID,
    STRUCTURED_FIELDS,
    Address,
    Attachment,
    Problem,
    RequestProblems,
    SendRequest,
    ascii_domain,
    media_type,
)
from service.mime.encode import (
    address_tokens,
    base64_blocks,
    field,
    given_phrase,
    parameter_tokens,
    plain_field,
    text_body,
    text_field,
)

# RFC 5322 3.3: English, whatever the locale.
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class _File:
    """What is encoded only as it is written: in pieces, and then whole, a large one would take its size once more."""

    data: bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """A MIME entity: its fields, and the pieces of its body, which ends with CRLF."""

    fields: str
    pieces: list[bytes | _File]


def build(
    request: SendRequest,
    *,
    message_id: str,
    boundary_seed: str,
    date: datetime,
    from_default: str,
    blobs: Mapping[str, bytes],
    keep_bcc: bool = False,
) -> bytes:
    """The mail of a request that `check_request` found right, without `rawBlobId`; its bytes end with CRLF.

    `message_id` is bare; `blobs` has every blobId that the attachments name. `boundary_seed` is what no stranger can
    know or work out: RFC 2046 5.1.1, no part may hold the boundary, and a text of his could. Raises RequestProblems
    for a domain that is no name.
    """
    bcc = request.bcc if keep_bcc else []
    header = _header(request, bcc, message_id, date, from_default)
    body = _content(request, boundary_seed, blobs)
    whole = BytesIO()
    whole.write(f"{header}MIME-Version: 1.0\r\n{body.fields}\r\n".encode())
    for piece in body.pieces:
        if isinstance(piece, _File):
            whole.writelines(base64_blocks(piece.data))
        else:
            whole.write(piece)
    return whole.getvalue()


def _header(request: SendRequest, bcc: Sequence[Address], message_id: str, date: datetime, from_default: str) -> str:
    sender = request.from_ or Address(email=from_default)
    fields = [
        field("Date", [_date(date.astimezone(UTC))]),
        _addresses("From", "from", [sender]),
    ]
    for name, key, addresses in (
        ("To", "to", request.to),
        ("Cc", "cc", request.cc),
        ("Bcc", "bcc", bcc),
        ("Reply-To", "replyTo", request.reply_to),
    ):
        if addresses:
            fields.append(_addresses(name, key, addresses))
    if not request.to and not request.cc:
        # RFC 5322 3.4: an empty group; a mail without any destination field looks like spam to many filters.
        fields.append("To: undisclosed-recipients:;\r\n")
    fields.append(text_field("Subject", request.subject))
    fields.append(field("Message-ID", [f"<{message_id}>"]))
    if request.in_reply_to is not None:
        fields.append(field("In-Reply-To", [f"<{request.in_reply_to}>"]))
    if request.references:
        fields.append(field("References", [f"<{reference}>" for reference in request.references]))
    fields += [_given(name, value) for name, value in request.headers.items()]
    return "".join(fields)


def _given(name: str, value: str) -> str:
    """One of the request's own fields."""
    if name.lower() == LIST_ID:
        # RFC 2919 3: a phrase, where there is one, and the id.
        words, _, id = value.strip(" \t").rpartition("<")
        return field(name, [*given_phrase(words.strip(" \t")), f"<{id}"])
    if name.lower() in STRUCTURED_FIELDS:
        return plain_field(name, value.replace("\t", " ").strip(" "))
    return text_field(name, value)


def _date(moment: datetime) -> str:
    """RFC 5322 3.3, of a moment in UTC. As email.utils has it; cut out of ISO 8601, a tenth of what formats take."""
    iso = moment.isoformat()
    return f"{_DAYS[moment.weekday()]}, {iso[8:10]} {_MONTHS[moment.month - 1]} {iso[:4]} {iso[11:19]} +0000"


def _addresses(name: str, key: str, addresses: Sequence[Address]) -> str:
    pairs: list[tuple[str | None, str]] = []
    for i, address in enumerate(addresses):
        try:
            pairs.append((address.name, ascii_domain(address.email)))
        except ValueError as exc:
            where = key if key == "from" else f"{key}[{i}]"
            raise RequestProblems([Problem(f"{where}.email", str(exc))]) from exc
    return field(name, address_tokens(pairs))


# -- structure ----------------------------------------------------------------------------------------------------


def _content(request: SendRequest, seed: str, blobs: Mapping[str, bytes]) -> _Part:
    related = [one for one in request.attachments if _belongs_to_html(request, one)]
    others = [one for one in request.attachments if not _belongs_to_html(request, one)]
    bodies: list[_Part] = []
    if request.text is not None:
        bodies.append(_text("plain", request.text))
    if request.html is not None:
        html = _text("html", request.html)
        if related:
            html = _multipart("related", [html, *(_file(one, blobs) for one in related)], seed, 'type="text/html"')
        bodies.append(html)
    # RFC 2046 5.1.4: the last alternative is the best.
    whole = [_multipart("alternative", bodies, seed)] if len(bodies) > 1 else bodies
    if others:
        return _multipart("mixed", [*whole, *(_file(one, blobs) for one in others)], seed)
    return whole[0]


def _belongs_to_html(request: SendRequest, attachment: Attachment) -> bool:
    return request.html is not None and attachment.disposition == "inline" and attachment.cid is not None


def _text(subtype: str, text: str) -> _Part:
    encoding, body = text_body(text)
    return _Part(f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n", [body])


def _file(attachment: Attachment, blobs: Mapping[str, bytes]) -> _Part:
    data = attachment.content if attachment.content is not None else blobs[attachment.blob_id or ""]
    disposition: list[str] = [attachment.disposition]
    if attachment.name is not None:
        disposition = [f"{attachment.disposition};", *parameter_tokens("filename", attachment.name)]
    fields = [
        field("Content-Type", _type_tokens(attachment.type)),
        "Content-Transfer-Encoding: base64\r\n",
        field("Content-Disposition", disposition),
    ]
    if attachment.cid is not None:
        fields.append(field("Content-ID", [f"<{attachment.cid}>"]))
    return _Part("".join(fields), [_File(data)])


def _type_tokens(type: str) -> list[str]:
    parts = media_type(type) or [type]
    return [*(f"{part};" for part in parts[:-1]), parts[-1]]


def _multipart(subtype: str, parts: Sequence[_Part], seed: str, parameter: str = "") -> _Part:
    # `=_` stands neither in quoted-printable nor in base64, the rest in no text that was not made for it.
    boundary = "=_" + hashlib.sha256(f"{seed}\0{subtype}".encode()).hexdigest()[:40]
    tokens = [f"multipart/{subtype};", *([f"{parameter};"] if parameter else []), f'boundary="{boundary}"']
    pieces: list[bytes | _File] = []
    for part in parts:
        pieces += (f"--{boundary}\r\n{part.fields}\r\n".encode(), *part.pieces, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return _Part(field("Content-Type", tokens), pieces)
