"""`move`: messages into another mailbox of the account.

What is gone already is in `notFound`: a second time does nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.transfer import transfer
from service.contract import CopyAnswer, CopyRequest, Verb, decode_body, encode

_DECODER: Final = msgspec.json.Decoder(CopyRequest)


async def move(context: Context, account: Account, payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Move, answer with the new ids."""
    mail = account.mail()
    request = decode_body(payload, _DECODER)
    async with mail.pool.session() as session:
        target = await mail.directory.find(session, request.mailbox)
        grouped = await mail.directory.group(session, request.ids)
        done = await transfer(
            session, mail, grouped, target, move=True, begun=context.begun(account, Verb.MOVE, headers)
        )
    return encode(CopyAnswer(done.created, done.not_found))
