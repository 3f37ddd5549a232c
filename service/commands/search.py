"""`search`: a filter → the ids of a mailbox's messages that match, sorted, a page of them (RFC 8621 4.4)."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from service.commands.account import Account, Context, MailAccess
from service.commands.errors import error, problem
from service.commands.order import Sortable, in_order
from service.contract import (
    COMPARATORS_LIMIT,
    Comparator,
    Email,
    Filter,
    Problem,
    SearchAnswer,
    SearchRequest,
    check_filter,
    decode_body,
    encode,
    wants_gmail,
)
from service.imap import (
    GMAIL,
    SURVEY_LIMIT_ROWS,
    Argument,
    Near,
    SurveyedMessage,
    WritingSession,
    criteria,
    moment_keys,
    moments,
    sortable,
    uid_set,
)
from service.mime import MimeLimits, parse_header_only

# Messages in one question: their UIDs stay within a line of IMAP (RFC 2683 3.2.1.5).
AT_ONCE: Final = 500
# Reading headers to sort by them takes a second or two for so many.
HEADERS_LIMIT: Final = 5000
UIDS_LIMIT_CHARS: Final = 6000
ID_ROOM_BYTES: Final = 40
SORT_LIMIT_BYTES: Final = 16384
SORT_FIELDS: Final = f"BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT)]<0.{SORT_LIMIT_BYTES}>"
_BY_HEADER: Final = frozenset({"sentAt", "from", "to", "subject"})
_LIMITS: Final = MimeLimits()
_DECODER: Final = msgspec.json.Decoder(SearchRequest)


async def search(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Check, look, answer; half of what NATS takes at the most."""
    mail = account.mail()
    request = decode_body(payload or b"{}", _DECODER)
    problems = [] if request.filter is None else check_filter(request.filter)
    if len(request.sort) > COMPARATORS_LIMIT:
        problems.append(Problem("sort", f"{len(request.sort)} of them; at most {COMPARATORS_LIMIT}"))
    if problems:
        raise error(400, problems)
    limit = min(request.limit, context.bus.max_payload // 2 // ID_ROOM_BYTES)
    async with mail.pool.session() as session:
        if wants_gmail(request.filter) and not session.offers(GMAIL):
            raise problem(400, "filter.gmail", "this mail server is not Gmail: it offers no X-GM-EXT-1")
        name = await mail.directory.find(session, request.mailbox)
        opened = await session.open_mailbox(name, writing=False)
        keys = await _keys(session, request.filter, context.clock.now())
        if request.sort:
            uids = await _sorted(session, mail, request.sort, keys)
            total, page = len(uids), uids[request.position : request.position + limit]
        else:
            found = await session.search(keys)
            total, page = sum(map(len, found)), _newest(found, request.position, limit)
    ids = [mail.followed.id_of(name, opened.uidvalidity, uid) for uid in page]
    return encode(SearchAnswer(ids, request.position, total, more=request.position + len(ids) < total))


def _newest(found: Sequence[range], position: int, limit: int) -> list[int]:
    """From the highest UID down; a run of a million is never written out."""
    page: list[int] = []
    for run in reversed(found):
        if position >= len(run):
            position -= len(run)
            continue
        page += run[::-1][position : position + limit - len(page)]
        position = 0
        if len(page) >= limit:
            break
    return page


async def _keys(session: WritingSession, filter: Filter | None, now: datetime) -> list[Argument]:
    named = moments(filter)
    within = session.offers("WITHIN")
    keys = {moment: moment_keys(moment, now=now, within=within) for moment in named}
    near = {moment: await _near(session, moment, keys[moment].near) for moment in named}
    return criteria(filter, utf8=session.utf8, keys=keys, near=near)


async def _near(session: WritingSession, moment: datetime, keys: str) -> Near:
    """The messages near a moment, told apart by their own dates."""
    rows = await _survey(session, await session.search([keys]))
    after = uid_set(row.uid for row in rows if row.internal_date is not None and row.internal_date >= moment)
    before = uid_set(row.uid for row in rows if row.internal_date is not None and row.internal_date < moment)
    if len(after) + len(before) > UIDS_LIMIT_CHARS:
        raise problem(400, "filter", f"too many messages lie about {moment.isoformat()}: choose another moment")
    return Near(after, before)


async def _sorted(
    session: WritingSession, mail: MailAccess, sort: Sequence[Comparator], keys: Sequence[Argument]
) -> list[int]:
    if sortable(sort, session.capabilities) and (uids := await session.sort(sort, keys)) is not None:
        return uids
    rows = await _survey(session, await session.search(keys))
    emails: dict[int, Email] = {}
    if any(one.property in _BY_HEADER for one in sort):
        if len(rows) > HEADERS_LIMIT:
            raise problem(400, "sort", f"{len(rows)} messages: this server does not sort; narrow the filter")
        emails = await _headers_of(session, mail, rows)
    return in_order([Sortable(row.uid, row.size, row.internal_date, emails.get(row.uid)) for row in rows], sort)


async def _survey(session: WritingSession, found: Sequence[range]) -> list[SurveyedMessage]:
    if sum(map(len, found)) > SURVEY_LIMIT_ROWS:
        raise problem(400, "filter", f"over {SURVEY_LIMIT_ROWS} messages to compare one by one: narrow the filter")
    uids = [uid for run in found for uid in run]
    rows: list[SurveyedMessage] = []
    for at in range(0, len(uids), AT_ONCE):
        rows += await session.survey_these(uids[at : at + AT_ONCE])
    return rows


async def _headers_of(session: WritingSession, mail: MailAccess, rows: Sequence[SurveyedMessage]) -> dict[int, Email]:
    found: dict[int, Email] = {}
    for at in range(0, len(rows), AT_ONCE):
        headers: dict[int, bytes] = {}
        uids = [row.uid for row in rows[at : at + AT_ONCE]]
        mail.allowance.check()
        await session.fetch_section(SORT_FIELDS, uids, headers.__setitem__, expected_bytes=len(uids) * SORT_LIMIT_BYTES)
        mail.allowance.note(sum(map(len, headers.values())))
        for number, (uid, header) in enumerate(headers.items()):
            found[uid] = parse_header_only(header, len(header), received_at=None, limits=_LIMITS).email
            if not number % 50:
                await asyncio.sleep(0)  # 50 headers take a few milliseconds
    return found
