"""Messages from their mailboxes into another one. Used by copy, move and delete.

MOVE where it is offered (RFC 6851); otherwise COPY, and UID EXPUNGE of what was copied (RFC 4315), never another's.
A command with an id notes where it begins to copy: the second time it looks there for what the first one did (put.py).
"""

from dataclasses import dataclass, field

from service.commands.account import MailAccess
from service.commands.begun import Beginnings
from service.commands.errors import problem
from service.commands.places import Group, Grouped, open_group
from service.commands.put import Sought, found_again
from service.imap import Identity, Moved, Refused, WritingSession


@dataclass(slots=True)
class Transferred:
    """Old id → new id, None where nobody knows it; and the ids whose messages are gone."""

    not_found: list[str]
    created: dict[str, str | None] = field(default_factory=dict)


async def transfer(
    session: WritingSession, mail: MailAccess, grouped: Grouped, target: str, *, move: bool, begun: Beginnings | None
) -> Transferred:
    """Copy or move; `begun`: under an id.

    Raises ServiceError 400 where the server can do it in no way that is safe for other messages.
    """
    if move and not session.offers("MOVE") and not session.offers("UIDPLUS"):
        raise problem(
            400, "", "the mail server has neither MOVE nor UIDPLUS: moving would remove what others marked as deleted"
        )
    done = Transferred(grouped.not_found)
    for group in grouped.groups:
        await open_group(session, group, writing=move)
        there = await session.there(group.ids)
        done.not_found += [id for uid, id in group.ids.items() if uid not in set(there)]
        if move and group.mailbox == target:
            done.created |= {group.ids[uid]: group.ids[uid] for uid in there}
        elif there:
            moved = await _transfer(session, group, there, target, move=move, begun=begun)
            for uid in there:
                new = moved.uids.get(uid) if moved is not None else None
                done.created[group.ids[uid]] = (
                    mail.followed.id_of(target, moved.uidvalidity, new)
                    if moved is not None and new is not None
                    else None
                )
    return done


async def _transfer(
    session: WritingSession, group: Group, uids: list[int], target: str, *, move: bool, begun: Beginnings | None
) -> Moved | None:
    if move and session.offers("MOVE"):
        return await _once(session, group, uids, target, move=True, begun=None)
    before = await _found(session, group, uids, target, begun) if begun is not None else None
    left = [uid for uid in uids if before is None or uid not in before.uids]
    moved = await _once(session, group, left, target, move=False, begun=begun) if left else None
    if move:
        await open_group(session, group, writing=True)
        await session.expunge(uids)
    if before is None or moved is None:
        return moved or before
    return Moved(moved.uidvalidity, before.uids | moved.uids)


async def _once(
    session: WritingSession, group: Group, uids: list[int], target: str, *, move: bool, begun: Beginnings | None
) -> Moved | None:
    """One COPY or MOVE; where the server does not say what became of the messages they are looked for."""
    await open_group(session, group, writing=move)
    identities: dict[int, Identity] = {}
    first = 1
    if not session.offers("UIDPLUS"):
        identities = await session.identities(uids)
        first = (await session.status(target, "UIDNEXT")).get("UIDNEXT", 1)
    try:
        moved = await (session.move(uids, target) if move else session.copy(uids, target))
    except Refused:
        if begun is not None:
            begun.refused(group.mailbox)
        raise
    if moved is not None:
        return moved
    if not (identities or move):
        identities = await session.identities(uids)  # it was expected to say, and the originals are still there
    return await _located(session, identities, target, first)


async def _found(
    session: WritingSession, group: Group, uids: list[int], target: str, begun: Beginnings
) -> Moved | None:
    """What an earlier try has copied. Raises ServiceError 409 where nobody can tell."""
    status = await session.status(target, "UIDNEXT", "UIDVALIDITY")
    into, uidnext = status.get("UIDVALIDITY", 0), status.get("UIDNEXT", 0)
    began = await begun.earlier(group.mailbox, into=into, first=uidnext)
    if began is None:
        return None
    rows, identities = await session.survey_these(uids), await session.identities(uids)
    sought = {row.uid: Sought(row.size, row.internal_date, identities.get(row.uid)) for row in rows}
    found = await found_again(session, target, began, sought, uidnext=uidnext)
    await open_group(session, group, writing=False)
    return Moved(into, found) if found else None


async def _located(session: WritingSession, identities: dict[int, Identity], target: str, first: int) -> Moved | None:
    if not identities:
        return None
    opened = await session.open_mailbox(target, writing=False)
    found = await session.locate(set(identities.values()), first=first)
    return Moved(opened.uidvalidity, {uid: found[one] for uid, one in identities.items() if one in found})
