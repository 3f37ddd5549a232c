"""`resync`: a mailbox that is followed, or all of them, compared in full now; events tell what was found.

A second time finds nothing more: what is told once is known.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from service.bus import ServiceError
from service.commands.account import Account, Context, MailAccess
from service.commands.errors import error, problem
from service.contract import (
    Problem,
    ResyncAnswer,
    Resynced,
    ResyncRequest,
    decode_body,
    encode,
    mailbox_id,
    mailbox_name,
)
from service.errors import Transient, verdict_of
from service.tasks import TaskGroup

_DECODER: Final = msgspec.json.Decoder(ResyncRequest)
# What is compared at once: a comparison asks the mail server as much as a first connect.
AT_ONCE: Final = 4


async def resync(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Ask whoever follows the mailboxes, wait, count."""
    mail = account.mail()
    request = decode_body(payload or b"{}", _DECODER)
    wanted = _wanted(mail, request)
    places = asyncio.Semaphore(AT_ONCE)
    refused: list[Problem] = []

    async def one(mailbox: str) -> Resynced | None:
        async with places:
            try:
                return await mail.followed.resync(mailbox)
            except Transient as exc:
                if mailbox in mail.followed.mailboxes():
                    refused.append(Problem("mailbox", f"{exc.what}: {exc.remedy}"))
                elif request.mailbox is not None:
                    raise _not_followed() from exc
                # Deleted or renamed meanwhile: all of them are those that are left.
                return None

    try:
        async with TaskGroup() as group:
            tasks = [group.create_task(one(mailbox), name="resync") for mailbox in wanted]
    except BaseExceptionGroup as failed:
        raise verdict_of(failed) from failed
    if refused:
        raise error(503, refused)
    found = [told for task in tasks if (told := task.result()) is not None]
    announced = sum(told.received + told.changed + told.removed for told in found)
    shown = context.fitting(found)
    return encode(ResyncAnswer(announced, shown, more=len(shown) < len(found)))


def _wanted(mail: MailAccess, request: ResyncRequest) -> list[str]:
    followed = mail.followed.mailboxes()
    if request.mailbox is None:
        return list(followed)
    for name in followed:
        if mailbox_name(name) == mailbox_name(request.mailbox) or mailbox_id(name) == request.mailbox:
            return [name]
    raise _not_followed()


def _not_followed() -> ServiceError:
    return problem(404, "mailbox", "this mailbox is not followed: `mailboxes` of the account's settings says which are")
