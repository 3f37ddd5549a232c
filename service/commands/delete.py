"""`delete`: messages into the trash, or away for ever.

What is gone already is in `notFound`: a second time does nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.commands.account import Account, Context, MailAccess
from service.commands.begun import Beginnings
from service.commands.errors import problem
from service.commands.places import Grouped, open_group
from service.commands.transfer import transfer
from service.contract import DeleteAnswer, DeleteRequest, Verb, decode_body, encode
from service.imap import WritingSession

_DECODER: Final = msgspec.json.Decoder(DeleteRequest)


async def delete(context: Context, account: Account, payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Delete, answer with what is deleted."""
    mail = account.mail()
    request = decode_body(payload, _DECODER)
    async with mail.pool.session() as session:
        grouped = await mail.directory.group(session, request.ids)
        if request.permanently:
            answer = await _expunge(session, grouped)
        else:
            answer = await _to_trash(session, mail, grouped, context.begun(account, Verb.DELETE, headers))
    return encode(answer)


async def _expunge(session: WritingSession, grouped: Grouped) -> DeleteAnswer:
    answer = DeleteAnswer([], grouped.not_found)
    for group in grouped.groups:
        await open_group(session, group, writing=True)
        there = await session.there(group.ids)
        if there:
            await session.expunge(there)
        answer.destroyed.extend(group.ids[uid] for uid in there)
        answer.not_found.extend(id for uid, id in group.ids.items() if uid not in set(there))
    return answer


async def _to_trash(
    session: WritingSession, mail: MailAccess, grouped: Grouped, begun: Beginnings | None
) -> DeleteAnswer:
    """What lies in the trash already stays there."""
    trash = (await mail.directory.by_role(session)).get("trash")
    if trash is None:
        message = "no mailbox has the role `trash`: `move` into one that will do, or delete `permanently`"
        raise problem(400, "permanently", message)
    done = await transfer(session, mail, grouped, trash, move=True, begun=begun)
    return DeleteAnswer(list(done.created), done.not_found)
