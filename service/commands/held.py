"""`held`: the requests of which nobody knows whether they were sent, and which wait for somebody to decide."""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.contract import HeldAnswer, HeldAsked, decode_body, encode, request_key

_DECODER: Final = msgspec.json.Decoder(HeldAsked)


async def held(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """As many as an answer has room for."""
    asked = decode_body(payload, _DECODER)
    held = await account.sending().requests.held(after=asked.after or "")
    shown = context.fitting(held.found)
    if len(shown) < len(held.found):
        last = shown[-1].id if shown else held.found[0].id
        return encode(HeldAnswer(shown, more=True, next=request_key(account.id, last)))
    return encode(held)
