"""`flags`: keywords of messages set and taken away (RFC 8621 4.1.1)."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.commands.account import Account, Context
from service.commands.errors import error, problem
from service.commands.places import open_group
from service.contract import (
    KEYWORDS_LIMIT,
    FlagsAnswer,
    FlagsRequest,
    Problem,
    decode_body,
    encode,
    flag_of,
    is_keyword,
)
from service.imap import Opened

_DECODER: Final = msgspec.json.Decoder(FlagsRequest)


async def flags(_context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Check, store, answer. The same again changes nothing more."""
    mail = account.mail()
    request = decode_body(payload, _DECODER)
    _check(request)
    updated: list[str] = []
    async with mail.pool.session() as session:
        grouped = await mail.directory.group(session, request.ids)
        not_found = grouped.not_found
        for group in grouped.groups:
            opened = await open_group(session, group, writing=True)
            check_stored(opened, request.add)
            there = await session.there(group.ids)
            if there:
                await session.store(there, add=_flags(request.add), remove=_flags(request.remove))
            updated += [group.ids[uid] for uid in there]
            not_found += [id for uid, id in group.ids.items() if uid not in set(there)]
    return encode(FlagsAnswer(updated, not_found))


def _check(request: FlagsRequest) -> None:
    problems = check_keywords("add", request.add) + check_keywords("remove", request.remove)
    if not request.add and not request.remove:
        problems.append(Problem("add", "nothing to add and nothing to remove"))
    if both := {one.lower() for one in request.add} & {one.lower() for one in request.remove}:
        problems.append(Problem("remove", f"to be added too: {', '.join(sorted(both))}"))
    if problems:
        raise error(400, problems)


def check_keywords(field: str, words: Sequence[str]) -> list[Problem]:
    """What is wrong with keywords as such."""
    if len(words) > KEYWORDS_LIMIT:
        return [Problem(field, f"{len(words)} of them; at most {KEYWORDS_LIMIT}")]
    wanted = 'not a keyword: 1 to 255 of ASCII without spaces and ( ) { ] % * " \\ is wanted, as in $seen'
    return [Problem(f"{field}[{i}]", wanted) for i, word in enumerate(words) if not is_keyword(word)]


def check_stored(opened: Opened, words: Sequence[str]) -> None:
    """Raises ServiceError 400 where the server would forget a keyword (RFC 9051 7.1, PERMANENTFLAGS)."""
    lost = [word for word in words if not opened.stores(flag_of(word))]
    if lost:
        raise problem(400, "add", f"the mail server does not keep {', '.join(lost)} in {opened.name}")


def _flags(words: Sequence[str]) -> list[str]:
    return [flag_of(word) for word in words]
