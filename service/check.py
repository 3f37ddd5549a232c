"""Settings → what works of all that they name: NATS, each mailbox, each relay. Used by `mailbus check`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.after import no_target
from service.boxes import Chosen, no_role
from service.build import (
    CONNECTING_LIMIT,
    nats_options,
    next_relays,
    pop3_options,
    session_options,
    smtp_options,
    stream_options,
)
from service.bus import open_bus
from service.clock import Clock, SystemClock
from service.contract import AccountPart, AfterKind, ChoiceKind
from service.errors import MailbusError, Permanent
from service.imap import Session, overview
from service.login import TokenSource
from service.oauth import Tokens
from service.pop3 import Session as Pop3Session
from service.pop3 import listed
from service.settings import (
    AccountSettings,
    IncomingSettings,
    OutgoingSettings,
    Pop3Settings,
    Settings,
    needs,
    show_duration,
)
from service.smtp import Relay
from service.tasks import TaskGroup
from service.tokens import account_tokens
from service.turns import Turns

MAILBOXES_SHOWN: Final = 20
NATS: Final = "nats"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `error` is empty where it works."""

    what: str
    detail: str
    error: MailbusError | None = None


async def check(settings: Settings, report: Callable[[Finding], None]) -> None:
    """Try everything, and report each thing as it is known."""
    places = asyncio.Semaphore(CONNECTING_LIMIT)
    clock = SystemClock()

    async def attempt(what: str, work: Callable[[], Awaitable[str]]) -> None:
        async with places:
            try:
                report(Finding(what, await work()))
            except MailbusError as exc:
                report(Finding(what, "", exc))

    async with TaskGroup() as group:
        group.create_task(attempt(NATS, lambda: _nats(settings)), name=NATS)
        for account in settings.accounts:
            for what, work in _account(settings, account, clock):
                group.create_task(attempt(f"{account.id} {what}", work), name=account.id)


def _account(
    settings: Settings, account: AccountSettings, clock: Clock
) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
    """What there is to try of an account, after what its provider needs."""
    incoming, outgoing = account.incoming, account.outgoing
    grants = {part.oauth2.grant if part.oauth2 else None for part in (incoming, outgoing) if part is not None}
    for said in sorted({needs(account.preset, grant) for grant in grants} - {""}):
        yield "provider", partial(_say, said)
    try:
        tokens = account_tokens(account, clock, settings.network.reach)
    except MailbusError as exc:
        yield AccountPart.OAUTH2, partial(_fail, exc)
        return
    for part, source in tokens.parts().items():
        yield part, partial(_token, source)
    if incoming is not None:
        if incoming.pop3 is not None:
            what = "incoming" if incoming.imap is None else "stand-in"
            yield what, partial(_maildrop, settings, account, incoming, incoming.pop3, tokens.incoming, clock)
        if incoming.imap is not None:
            yield "incoming", partial(_incoming, settings, account, incoming, tokens.incoming, clock)
    if outgoing is not None:
        yield "outgoing", partial(_outgoing, settings, account, outgoing, tokens.outgoing, clock)


async def _fail(error: MailbusError) -> str:
    raise error


async def _say(text: str) -> str:
    return text


async def _token(tokens: Tokens) -> str:
    await tokens.get()
    if tokens.unkept is not None:
        raise tokens.unkept
    return f"a token, good for {tokens.left_s / 60:.0f} min"


async def _nats(settings: Settings) -> str:
    async with open_bus(nats_options(settings), None) as bus:
        version = bus.nc.connected_server_version
        number = f"{version.major}.{version.minor}.{version.patch}"
        # First without the streams that are to be made: to know them takes rights, too.
        await bus.check_rights()
        said = f"{', '.join(settings.nats.servers)}, version {number} with JetStream and all rights that mailbus needs"
        if missing := await bus.check_streams(stream_options(settings), settings.nats.replicas):
            await bus.check_rights(missing=missing)
            said += f"; to be made at the start: {', '.join(missing)}"
        return said


async def _incoming(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    tokens: TokenSource | None,
    clock: Clock,
) -> str:
    options = session_options(settings, account, incoming, tokens=tokens, losses=Turns())
    session = await Session.open(options, clock=clock)
    try:
        wrong: list[Permanent] = []
        found = await _mailboxes(session, incoming, wrong)
        if incoming.after.kind is AfterKind.MOVE:
            await _target(session, incoming.after.mailbox, wrong)
            found.append(f"moves to {incoming.after.mailbox}")
        if wrong:
            raise _together(wrong, [one.name for one in await session.list_mailboxes()], session.where)
        idle = "IDLE" if "IDLE" in session.capabilities else f"no IDLE: looked at every {show_duration(incoming.poll)}"
        return f"{session.options.host}, {idle}: {', '.join(found)}"
    finally:
        await session.logout()


async def _mailboxes(session: Session, incoming: IncomingSettings, wrong: list[Permanent]) -> list[str]:
    """What is in the mailboxes that would be followed; some of many, and all that settings name."""
    names = await _chosen(session, incoming, wrong)
    named = {choice.text for choice in incoming.mailboxes if choice.kind is ChoiceKind.NAME}
    found = []
    for place, name in enumerate(names):
        if place >= MAILBOXES_SHOWN and name not in named:
            continue
        try:
            selected = await session.examine(name)
        except Permanent as exc:
            wrong.append(Permanent(f"{name}: {exc.what}", remedy=exc.remedy))
        else:
            found.append(f"{name} ({selected.exists} messages)")
    if len(names) > MAILBOXES_SHOWN:
        found[MAILBOXES_SHOWN:] = [f"and {len(names) - MAILBOXES_SHOWN} more mailboxes"]
    return found


async def _target(session: Session, name: str, wrong: list[Permanent]) -> None:
    try:
        await session.examine(name)
    except Permanent:
        wrong.append(no_target(name, where=session.where))


def _together(wrong: list[Permanent], there: list[str], where: str) -> Permanent:
    """All that has to be mended, in one."""
    remedies = [*dict.fromkeys(one.remedy for one in wrong), f"there are: {', '.join(there[:MAILBOXES_SHOWN])}"]
    return Permanent("; ".join(one.what for one in wrong), where=where, remedy="; ".join(remedies))


async def _maildrop(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    pop3: Pop3Settings,
    tokens: TokenSource | None,
    clock: Clock,
) -> str:
    options = pop3_options(settings, account, incoming, pop3, tokens=tokens)
    session = await Pop3Session.open(options, clock=clock)
    try:
        listing = await listed(session)
        every = show_duration(incoming.poll)
        said = [f"{pop3.host}, looked at every {every}: {len(listing)} messages"]
        said += [f"no unique ids for {listing.nameless} of them"] if listing.nameless else []
        said += [f"{session.login_delay_s:g} s between logins"] if session.login_delay_s else []
        return ", ".join(said)
    finally:
        await session.leave()


async def _chosen(session: Session, incoming: IncomingSettings, wrong: list[Permanent]) -> list[str]:
    """The mailboxes that would be followed. `wrong`: of roles that are nobody's, and where nothing is chosen."""
    chosen = Chosen(incoming.mailboxes, incoming.exclude, incoming.roles, incoming.after.mailbox)
    if not chosen.needs_list:
        return chosen.names()
    found = chosen.resolve((await overview(session)).mailboxes)
    if found.roles:
        wrong.append(no_role(session.where, found.roles))
    elif not found.names:
        wrong.append(Permanent("`mailboxes` and `exclude` leave no mailbox", remedy="write others in `mailboxes`"))
    return found.names


async def _outgoing(
    settings: Settings, account: AccountSettings, outgoing: OutgoingSettings, tokens: TokenSource | None, clock: Clock
) -> str:
    reach = settings.network.reach
    said = []
    for options in (
        smtp_options(account, outgoing, tokens=tokens, reach=reach),
        *next_relays(account, outgoing, reach=reach),
    ):
        relay = Relay(options, clock)
        try:
            await relay.probe()
        finally:
            await relay.close()
        said.append(f"{options.host}, {options.security}, {'logged in' if options.login else 'no login wanted'}")
    return "; ".join(said)
