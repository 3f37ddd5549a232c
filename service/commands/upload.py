"""`upload`: bytes → a blob, for attachments and `append` (RFC 8620 6.1)."""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.errors import problem
from service.contract import UploadAnswer, UploadRequest, decode_body, encode

_DECODER: Final = msgspec.json.Decoder(UploadRequest)


async def upload(context: Context, _account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Store once, answer with the blobId. The same again gives the same."""
    request = decode_body(payload, _DECODER)
    size = len(request.content)
    if size > context.message_limit:
        raise problem(400, "content", f"{size} bytes; at most {context.message_limit}")
    blob_id = await context.bus.blobs().put(request.content, now=context.clock.now())
    return encode(UploadAnswer(blob_id, request.type, size, request.name))
