"""`get`: messages by id, with the properties that are asked for (RFC 8621 4.2); raw bytes as a blob.

Of a message no more is read than the properties need: nothing, some header fields, the header, or all. What is read is
made an Email by the same code as events are. Raw bytes go into their blob as they come, unless the properties need the
whole message anyway. Reading never marks as read.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import msgspec

from service.commands.account import Account, Context, MailAccess
from service.commands.errors import problem
from service.commands.places import Group, open_group, still_there
from service.contract import (
    DEFAULT_PROPERTIES,
    HEADER_FIELDS,
    HEADER_PREFIX,
    METADATA,
    PROPERTIES,
    EmailHeader,
    Extra,
    GetAnswer,
    GetRequest,
    HeaderProperty,
    decode_body,
    encode,
    header_property,
    keywords,
)
from service.errors import Transient
from service.imap import GMAIL, PIECE_BYTES, Gone, Labelling, SurveyedMessage, WritingSession
from service.mime import MimeLimits, header_form, language_is_there
from service.parsing import Made, Page, Raw, Read

# What is read, and held, at once.
PAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024
PAGE_LIMIT_MESSAGES: Final = 50
# For a page's memory: other commands of the account wait for the connection meanwhile, as long as that.
MEMORY_LIMIT_S: Final = 20.0
# Gmail refuses headers over 500 KB, Exchange over 256 KB.
HEADER_LIMIT_BYTES: Final = 512 * 1024
# Fields asked for by name: more of them, or with a name that is no atom of IMAP's, are read with the whole header.
FIELDS_LIMIT: Final = 50
# Nor with names that do not fit into a line of IMAP (RFC 2683 3.2.1.5).
FIELDS_LIMIT_CHARS: Final = 6000
_ATOM: Final = re.compile(r"[a-z0-9_.-]+")
LIMITS: Final = MimeLimits()
# blobIds stand in these.
_PARTS: Final = frozenset({"bodyStructure", "textBody", "htmlBody", "attachments"})
_DECODER: Final = msgspec.json.Decoder(GetRequest)
_PROPERTIES: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_HEADERS: Final = msgspec.json.Decoder(list[EmailHeader])
_NO_VALUES: Final = msgspec.Raw(b"{}")
# What stands for the id of a blob that is not stored yet.
BLOB_ID_ROOM: Final = "?" * 71


class Needs(Enum):
    """How much of a message the properties need."""

    NOTHING = auto()
    FIELDS = auto()
    HEADER = auto()
    ALL = auto()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for of each message."""

    properties: frozenset[str]
    needs: Needs
    values: bool
    raw: bool
    headers: list[HeaderProperty]
    extras: list[Extra] | None = None

    @property
    def streams(self) -> bool:
        """Whether raw bytes are all that is needed of a message's body."""
        return self.raw and self.needs is not Needs.ALL

    @property
    def section(self) -> str:
        """Of FETCH (RFC 9051 6.4.5), for what needs a header."""
        if self.needs is Needs.HEADER:
            return f"BODY.PEEK[HEADER]<0.{HEADER_LIMIT_BYTES}>"
        fields = sorted(
            {HEADER_FIELDS[name] for name in self.properties & HEADER_FIELDS.keys()}
            | {one.name.title() for one in self.headers}
        )
        return f"BODY.PEEK[HEADER.FIELDS ({' '.join(fields)})]<0.{HEADER_LIMIT_BYTES}>"


@dataclass(frozen=True, slots=True)
class Shown:
    """One message of the answer, and what must be stored before it is given."""

    properties: dict[str, Any]
    made: Made
    size: int


async def get(context: Context, account: Account, payload: bytes, _headers: Mapping[str, str]) -> bytes:
    """Read, store blobs, answer; half of what NATS takes at the most."""
    mail = account.mail()
    request = decode_body(payload, _DECODER)
    wanted = wanted_of(request)
    room = context.bus.max_payload // 2
    found: list[dict[str, Any]] = []
    holds = wanted.raw or wanted.needs is Needs.ALL
    async with mail.alone() if holds else nullcontext(), mail.pool.session() as session:
        grouped = await mail.directory.group(session, request.ids)
        not_found = grouped.not_found
        for group in grouped.groups:
            await open_group(session, group, writing=False)
            if session.offers(GMAIL):
                session.labelling = Labelling(group.mailbox, await mail.directory.by_role(session))
            rows = {row.uid: row for row in await session.survey_these(group.ids)}
            not_found += [id for uid, id in group.ids.items() if uid not in rows]
            room -= len(encode(not_found))
            for page in _pages([rows[uid] for uid in group.ids if uid in rows], wanted, context.message_limit):
                if wanted.needs is not Needs.NOTHING and not _may_read(mail, found):
                    return encode(GetAnswer(found, not_found, more=True))
                # Until its blobs are stored: they are what was read, or made of it.
                async with _memory(context, page, wanted) as is_held:
                    if not is_held and not found:
                        raise problem(503, "", f"no memory for it within {MEMORY_LIMIT_S:g} s: ask again later")
                    if not is_held:
                        return encode(GetAnswer(found, not_found, more=True))
                    shown_page = await _page(context, mail, session, group, page, wanted)
                    there = {shown.made.uid for shown in shown_page}
                    not_found += [group.ids[row.uid] for row in page if row.uid not in there]
                    for shown in shown_page:
                        room -= len(encode(shown.properties)) + 1
                        streams = "blobId" in shown.properties and wanted.streams
                        if (room < 0 and found) or (streams and not _may_read(mail, found)):
                            return encode(GetAnswer(found, not_found, more=True))
                        if await _stored(context, mail, session, group, shown, wanted):
                            found.append(shown.properties)
                        else:
                            not_found.append(group.ids[shown.made.uid])
    return encode(GetAnswer(found, not_found))


def wanted_of(request: GetRequest) -> Wanted:
    """Raises ServiceError 400 for a property that there is not."""
    names = DEFAULT_PROPERTIES if request.properties is None else frozenset(request.properties)
    try:
        headers = [header_property(name) for name in sorted(names) if name.startswith(HEADER_PREFIX)]
    except ValueError as exc:
        raise problem(400, "properties", str(exc)) from exc
    if Extra.LANGUAGE in (request.extras or ()) and not language_is_there():
        raise problem(400, "extras", "`language` is not installed here: pip install 'mailbus[language]'")
    names -= {one.property for one in headers}
    if unknown := sorted(names - PROPERTIES):
        known = ", ".join([*sorted(PROPERTIES), f"{HEADER_PREFIX}NAME"])
        raise problem(400, "properties", f"no property of an Email: {', '.join(unknown)[:200]}; known are {known}")
    # RFC 8621 4.2: the id is always given.
    names |= {"id", "blobId"} if request.raw else {"id"}
    read = names - METADATA - {"blobId", "threadId"}
    if read - HEADER_FIELDS.keys() - {"headers"}:
        needs = Needs.ALL
    elif "headers" in read or not _are_fields([one.name for one in headers]):
        needs = Needs.HEADER
    else:
        needs = Needs.FIELDS if read or headers else Needs.NOTHING
    return Wanted(names, needs, request.fetch_all_body_values, request.raw, headers, request.extras)


def _are_fields(names: Sequence[str]) -> bool:
    """Whether header fields can be asked for by these names."""
    if len(names) > FIELDS_LIMIT or sum(map(len, names)) > FIELDS_LIMIT_CHARS:
        return False
    return all(map(_ATOM.fullmatch, names))


def _pages(rows: Sequence[SurveyedMessage], wanted: Wanted, message_limit: int) -> Iterator[list[SurveyedMessage]]:
    page: list[SurveyedMessage] = []
    size = 0
    for row in rows:
        weight = _weight(row, wanted, message_limit)
        if page and (size + weight > PAGE_LIMIT_BYTES or len(page) >= PAGE_LIMIT_MESSAGES):
            yield page
            page, size = [], 0
        page.append(row)
        size += weight
    if page:
        yield page


def _weight(row: SurveyedMessage, wanted: Wanted, message_limit: int) -> int:
    # A message over the limit shows its header alone.
    return row.size if wanted.needs is Needs.ALL and row.size <= message_limit else min(row.size, HEADER_LIMIT_BYTES)


@asynccontextmanager
async def _memory(context: Context, page: Sequence[SurveyedMessage], wanted: Wanted) -> AsyncIterator[bool]:
    """For whole messages; False where it does not come in time."""
    async with AsyncExitStack() as held:
        # Whoever has the connection and needs none must not stand behind those who wait: one of them may need it.
        is_held = wanted.needs is not Needs.ALL
        if not is_held:
            with suppress(TimeoutError):
                async with asyncio.timeout(MEMORY_LIMIT_S):
                    size = sum(_weight(row, wanted, context.message_limit) for row in page)
                    await held.enter_async_context(context.hold(size))
                    is_held = True
        yield is_held


def _may_read(mail: MailAccess, found: Sequence[object]) -> bool:
    """Whether bytes of the day are left. Raises Transient where none are, and there is nothing to answer."""
    try:
        mail.allowance.check()
    except Transient:
        if not found:
            raise
        return False
    return True


async def _page(
    context: Context,
    mail: MailAccess,
    session: WritingSession,
    group: Group,
    rows: Sequence[SurveyedMessage],
    wanted: Wanted,
) -> list[Shown]:
    common = Page(
        "",
        group.mailbox,
        "",
        group.uidvalidity,
        mail.inline_limit,
        context.bus.max_payload // 2,
        Raw.ALWAYS if wanted.raw and not wanted.streams else mail.raw,
        context.clock.now(),
        server=mail.authserv_id,
        extras=list(mail.extras) if wanted.extras is None else wanted.extras,
    )
    bodies: dict[int, bytes] = {}
    whole = [row.uid for row in rows if wanted.needs is Needs.ALL and row.size <= context.message_limit]
    header = [row.uid for row in rows if wanted.needs is Needs.ALL and row.size > context.message_limit]
    expected = sum(_weight(row, wanted, context.message_limit) for row in rows)
    if whole:
        await session.fetch_bodies(whole, bodies.__setitem__, header_only=False, expected_bytes=expected)
    if header:
        await session.fetch_bodies(header, bodies.__setitem__, header_only=True, expected_bytes=expected)
    if wanted.needs in {Needs.FIELDS, Needs.HEADER}:
        await session.fetch_section(
            wanted.section, [row.uid for row in rows], bodies.__setitem__, expected_bytes=expected
        )
    mail.allowance.note(sum(map(len, bodies.values())))
    missing = [row.uid for row in rows if wanted.needs is not Needs.NOTHING and row.uid not in bodies]
    if missing:
        # Expunged since it was listed, or its mailbox was made again; else the server does not give it.
        gone = set(missing) - await still_there(session, group, missing)
        rows = [row for row in rows if row.uid not in gone]
    made = await context.make(common, [_read(row, bodies.get(row.uid), row.uid in set(whole)) for row in rows])
    sizes = {row.uid: row.size for row in rows}
    return [_with_id(one, group, wanted, context, sizes[one.uid]) for one in made]


def _with_id(made: Made, group: Group, wanted: Wanted, context: Context, size: int) -> Shown:
    properties = _shown(made, wanted) | {"id": group.ids[made.uid]}
    if wanted.streams and size <= context.message_limit:
        properties["blobId"] = BLOB_ID_ROOM
    return Shown(properties, made, size)


def _read(row: SurveyedMessage, body: bytes | None, whole: bool) -> Read:
    return Read(
        row.uid,
        row.size,
        keywords(row.flags | row.labels.flags),
        row.internal_date,
        body,
        whole,
        email_id=row.email_id,
        thread_id=row.thread_id,
        mailboxes=sorted(row.labels.mailboxes),
    )


def _shown(made: Made, wanted: Wanted) -> dict[str, Any]:
    properties: dict[str, Any] = _PROPERTIES.decode(made.payload)
    if not wanted.values and "bodyValues" in properties:
        properties["bodyValues"] = _NO_VALUES
    shown = {name: value for name, value in properties.items() if name in wanted.properties}
    if wanted.headers:
        fields = _HEADERS.decode(properties["headers"])
        shown |= {one.property: header_form(fields, one, LIMITS) for one in wanted.headers}
    return shown


async def _stored(
    context: Context, mail: MailAccess, session: WritingSession, group: Group, shown: Shown, wanted: Wanted
) -> bool:
    """Store the blobs that the answer names; False where the message is gone. Raises ServiceError 503, Transient."""
    try:
        await _store(context, mail, session, shown, wanted)
    except Gone as exc:
        uid = shown.made.uid
        if uid not in await still_there(session, group, [uid]):
            return False
        message = f"{exc.what}: ask again later, or without `raw`"
        raise problem(503, f"ids.{group.ids[uid]}", message) from exc
    return True


async def _store(context: Context, mail: MailAccess, session: WritingSession, shown: Shown, wanted: Wanted) -> None:
    """The blobs that the answer names. Raises Gone where a message is not given."""
    if wanted.streams:
        if shown.properties.pop("blobId", None) is not None:
            mail.allowance.note(shown.size)
            async with context.hold(2 * PIECE_BYTES), aclosing(session.pieces(shown.made.uid, shown.size)) as pieces:
                shown.properties["blobId"] = await context.bus.blobs().put_pieces(pieces, now=context.clock.now())
        return
    blobs = shown.made.blobs
    if not wanted.properties & _PARTS:
        raw = shown.properties.get("blobId")
        named = msgspec.json.decode(raw, type=str) if raw is not None else None
        blobs = [blob for blob in blobs if blob.id == named]
    if blobs:
        await context.bus.blobs().put_all(blobs, now=context.clock.now())
