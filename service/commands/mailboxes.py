"""`mailboxes`: what mailboxes an account has, their roles, and how much is in them (RFC 8621 section 2)."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from service.commands.account import Account, Context
from service.contract import (
    Mailbox,
    MailboxesAnswer,
    MailboxesRequest,
    MailboxExtension,
    decode_body,
    encode,
    mailbox_id,
)
from service.imap import ListedMailbox, Totals, list_totals, selectable

_DECODER: Final = msgspec.json.Decoder(MailboxesRequest)


async def mailboxes(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """List, count, answer; half of what NATS takes at the most."""
    mail = account.mail()
    request = decode_body(payload or b"{}", _DECODER)
    async with mail.pool.session() as session:
        listed = await mail.directory.listed(session, within_s=0)
        totals = await list_totals(session, listed)
    found = _mailboxes(listed, totals, mail.directory.roles(listed))[request.position :]
    shown = context.fitting(found)
    return encode(MailboxesAnswer(shown, more=len(shown) < len(found)))


def _mailboxes(listed: list[ListedMailbox], totals: Mapping[str, Totals], role_of: Mapping[str, str]) -> list[Mailbox]:
    names = {one.name for one in listed}
    found: list[Mailbox] = []
    for one in sorted(listed, key=lambda one: one.name):
        above, _, name = one.name.rpartition(one.delimiter) if one.delimiter else ("", "", one.name)
        counted = totals.get(one.name)
        found.append(
            Mailbox(
                id=mailbox_id(one.name),
                # A mailbox whose parent is not listed is at the top, under its whole name.
                name=name if above in names else one.name,
                parent_id=mailbox_id(above) if above in names else None,
                role=role_of.get(one.name),
                mailbus=MailboxExtension(one.name, selectable(one)),
                total_emails=UNSET if counted is None else counted.messages,
                unread_emails=UNSET if counted is None else counted.unseen,
            )
        )
    return found
