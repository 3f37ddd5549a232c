"""`send`: a request → checked, in `MAIL_OUT`, and its id."""

import uuid
from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.errors import error, problem
from service.contract import (
    RequestProblems,
    SendAnswer,
    beyond,
    blob_ids,
    check_request,
    decode_request,
    encode,
    missing_blobs,
    wrong_sizes,
)
from service.errors import Transient

# What NATS counts besides the payload: the subject and the headers of the stream's own copy.
ROOM_BYTES: Final = 1024


async def send(context: Context, account: Account, payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Check, publish, answer. Raises ServiceError: 400 with every problem, 503 where NATS does not take it."""
    bus = context.bus
    limits = account.sending().limits
    try:
        request = decode_request(payload)
        if request.id is None:
            request = msgspec.structs.replace(request, id=headers.get("Nats-Msg-Id") or uuid.uuid4().hex)
            payload = encode(request)
            if problems := check_request(request):
                raise RequestProblems(problems)
        whole = await account.sending().originals.resolved(request)
    except RequestProblems as exc:
        raise error(400, exc.problems) from exc
    if len(payload) + ROOM_BYTES > bus.max_payload:
        size = f"{len(payload)} bytes; NATS takes {bus.max_payload}"
        raise problem(400, "attachments", f"{size}: give large ones by blobId")
    problems = beyond(request, context.clock.now(), limits)
    try:
        sizes = await bus.blobs().sizes(blob_ids(whole))
        problems += missing_blobs(whole, sizes)
        problems += wrong_sizes(whole, sizes)
        if problems:
            raise error(400, problems)
        # No Nats-Msg-Id: that the same id is sent once is the affair of `mail-sends`, however late it comes again.
        urgent = request.priority == "high"
        await bus.publish((bus.subjects.out_urgent if urgent else bus.subjects.out)(account.id), payload)
    except Transient as exc:
        # It may be in the queue all the same: under the same id it is sent once, under a new one twice.
        said = f"{exc.what}; if in doubt ask again with the same id: {request.id}"
        raise problem(503, "id", said) from exc
    return encode(SendAnswer(request.id or ""))
