"""`release`: a request on hold that shall be sent again, at once."""

from collections.abc import Mapping

from service.commands.account import Account, Context
from service.commands.cancel import DECODER
from service.commands.errors import problem
from service.contract import CancelAnswer, decode_body, encode


async def release(_context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Raises ServiceError 404 where there is no such request."""
    undone = await account.sending().requests.release(decode_body(payload, DECODER).id)
    if undone is None:
        raise problem(404, "id", "no such request")
    return encode(CancelAnswer(undone.undo_status, list(undone.cancelled)))
