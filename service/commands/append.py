"""`append`: a message into a mailbox, from a blob or built as `send` would (RFC 8621 4.8, RFC 9051 6.3.12).

With an id (`Nats-Msg-Id`, or the request's own) a message that is there already, by Message-ID and size, is the answer;
one without a Message-ID is looked for by its content, where an earlier try began (put.py).
"""

import secrets
import uuid
from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.begun import Beginnings
from service.commands.errors import error, problem
from service.commands.flags import check_keywords, check_stored
from service.commands.put import appended_again
from service.contract import (
    AppendAnswer,
    AppendRequest,
    Problem,
    SendRequest,
    Verb,
    ascii_domain,
    blob_ids,
    blob_uses,
    check_request,
    decode_body,
    encode,
    flag_of,
    missing_blobs,
    request_key,
    wrong_sizes,
)
from service.errors import Permanent
from service.imap import Identity, Moved, Refused, WritingSession, identity_of
from service.mime import build

# What only a mail that goes out has.
_OF_SENDING: Final = {
    "raw_blob_id": "rawBlobId",
    "envelope": "envelope",
    "send_at": "sendAt",
    "expires_at": "expiresAt",
    "split": "split",
    "reply": "reply",
    "forward": "forward",
}
_DECODER: Final = msgspec.json.Decoder(AppendRequest)


async def append(context: Context, account: Account, payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Check, build, append, answer with the new id."""
    mail = account.mail()
    request = decode_body(payload, _DECODER)
    id = headers.get("Nats-Msg-Id") or (request.request.id if request.request is not None else None)
    _check(request)
    size = len(payload) + await _size(context, request)
    words = list(request.keywords)
    # Room for what it is made of and what is made of it, before the connection: others go on without room.
    async with mail.alone(), context.hold(2 * size), mail.pool.session() as session:
        message = await _message(context, account, request, id)
        name = await mail.directory.find(session, request.mailbox)
        if any(not flag_of(word).startswith("\\") for word in words):
            check_stored(await session.open_mailbox(name, writing=True), words)
        placed = await _located(session, name, message, 1) if id is not None else None
        begun = context.begun(account, Verb.APPEND, headers)
        if placed is None and begun is not None and _identity(message) is None:
            placed = await _earlier(session, name, message, begun)
        if placed is None:
            if begun is not None:
                await begun.claim()
            first = 1 if session.offers("UIDPLUS") else (await session.status(name, "UIDNEXT")).get("UIDNEXT", 1)
            flags = [flag_of(word) for word in words]
            try:
                placed = await session.append(name, message, flags=flags, received_at=request.received_at)
            except Refused:
                if begun is not None:
                    begun.refused("")
                raise
            if placed is None:
                placed = await _located(session, name, message, first)
    return encode(
        AppendAnswer(None if placed is None else mail.followed.id_of(name, placed.uidvalidity, placed.uids[0]))
    )


def _check(request: AppendRequest) -> None:
    problems = check_keywords("keywords", list(request.keywords))
    if (request.blob_id is None) == (request.request is None):
        problems.append(Problem("blobId", "give the message as `blobId`, or as a `request` of which it is made"))
    if request.request is not None:
        problems += [Problem(f"request.{one.field}", one.message) for one in check_request(request.request, sent=False)]
        problems += [
            Problem(f"request.{name}", "says nothing of a message that is not sent")
            for field, name in _OF_SENDING.items()
            if getattr(request.request, field) not in (None, False)
        ]
    if problems:
        raise error(400, problems)


async def _size(context: Context, request: AppendRequest) -> int:
    """The bytes of all blobs that it names, before any of them is read. Raises ServiceError 400, Transient."""
    made = request.request
    named = blob_ids(made) if made is not None else [request.blob_id or ""]
    sizes = await context.bus.blobs().sizes(named)
    problems: list[Problem] = []
    if made is not None:
        wrong = [*missing_blobs(made, sizes), *wrong_sizes(made, sizes)]
        problems = [Problem(f"request.{one.field}", one.message) for one in wrong]
    elif not sizes:
        problems = [Problem("blobId", f"no such blob: {request.blob_id}")]
    elif sizes[named[0]] > context.message_limit:
        problems = [Problem("blobId", f"{sizes[named[0]]} bytes; at most {context.message_limit}")]
    if problems:
        raise error(400, problems)
    uses = blob_uses(made) if made is not None else dict.fromkeys(named, 1)
    return sum(sizes[blob] * count for blob, count in uses.items())


async def _message(context: Context, account: Account, request: AppendRequest, id: str | None) -> bytes:
    if request.request is None:
        message = await _blob(context, request.blob_id or "", "blobId")
    else:
        message = await _built(context, account, request, request.request, id)
    if len(message) > context.message_limit:
        raise problem(400, "blobId", f"{len(message)} bytes; at most {context.message_limit}")
    if b"\0" in message:
        # RFC 9051 section 9, CHAR8.
        raise problem(400, "blobId", "a message with NUL cannot be kept in a mailbox")
    return message


async def _built(
    context: Context, account: Account, request: AppendRequest, made: SendRequest, id: str | None
) -> bytes:
    """Under an id always the same Message-ID, by which a second time is noticed."""
    key = request_key(account.id, f"append {id}") if id is not None else uuid.uuid4().hex
    sender = made.from_.email if made.from_ is not None else account.address
    try:
        domain = ascii_domain(sender).rpartition("@")[2]
    except ValueError:
        domain = "invalid"
    blobs = {blob: await _blob(context, blob, "request.attachments") for blob in blob_ids(made)}
    return build(
        made,
        message_id=f"{key}@{domain if domain.isascii() else 'invalid'}",
        # A second time is told by Message-ID and size, which a boundary does not change.
        boundary_seed=secrets.token_hex(16),
        date=request.received_at or context.clock.now(),
        from_default=account.address,
        blobs=blobs,
        keep_bcc=True,
    )


async def _blob(context: Context, blob: str, field: str) -> bytes:
    try:
        return await context.bus.blobs().get(blob)
    except Permanent as exc:
        raise problem(400, field, f"{exc.what}: {exc.remedy}") from exc


def _identity(message: bytes) -> Identity | None:
    # A line end without CR is one of two octets once a server has the message.
    size = len(message) + message.count(b"\n") - message.count(b"\r\n")
    end = message.find(b"\r\n\r\n")
    return identity_of(message[: end + 2] if end >= 0 else message, size)


async def _earlier(session: WritingSession, name: str, message: bytes, begun: Beginnings) -> Moved | None:
    """What an earlier try put there. Raises ServiceError 409 where nobody can tell."""
    status = await session.status(name, "UIDNEXT", "UIDVALIDITY")
    into, uidnext = status.get("UIDVALIDITY", 0), status.get("UIDNEXT", 0)
    began = await begun.earlier("", into=into, first=uidnext)
    uid = await appended_again(session, name, began, message, uidnext=uidnext) if began is not None else 0
    return Moved(into, {0: uid}) if uid else None


async def _located(session: WritingSession, name: str, message: bytes, first: int) -> Moved | None:
    if (identity := _identity(message)) is None:
        return None
    opened = await session.open_mailbox(name, writing=False)
    found = await session.locate({identity}, first=first)
    return Moved(opened.uidvalidity, {0: found[identity]}) if found else None
