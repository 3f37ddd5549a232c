"""`cancel`: a request that shall not be sent any more; the answer says whether that was still possible."""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.errors import problem
from service.contract import CancelAnswer, CancelRequest, decode_body, encode

DECODER: Final = msgspec.json.Decoder(CancelRequest)


async def cancel(_context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Raises ServiceError 404 where there is no such request."""
    undone = await account.sending().requests.cancel(decode_body(payload, DECODER).id)
    if undone is None:
        raise problem(404, "id", "no such request")
    return encode(CancelAnswer(undone.undo_status, list(undone.cancelled)))
