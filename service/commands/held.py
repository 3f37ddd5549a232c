"""`held`: the requests of which nobody knows whether they were sent, and which wait for somebody to decide."""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.contract import HeldAnswer, NothingAsked, decode_body, encode

_DECODER: Final = msgspec.json.Decoder(NothingAsked)


async def held(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """As many as an answer has room for."""
    decode_body(payload, _DECODER)
    held = await account.sending().requests.held()
    shown = context.fitting(held.found)
    return encode(HeldAnswer(shown, more=held.more or len(shown) < len(held.found)))
