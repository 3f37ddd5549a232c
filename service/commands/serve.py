"""Requests on `mail.cmd.*.<verb>` → the verb's file, with the account found. Used by app.py."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from service import __version__
from service.bus import ServiceError, serve
from service.commands.account import COMMAND_ID, Account, Context
from service.commands.append import append
from service.commands.begun import COMMAND_LIMIT_S
from service.commands.cancel import cancel
from service.commands.copy import copy
from service.commands.delete import delete
from service.commands.errors import answer_of, error
from service.commands.flags import flags
from service.commands.get import get
from service.commands.held import held
from service.commands.mailboxes import mailboxes
from service.commands.move import move
from service.commands.release import release
from service.commands.resync import resync
from service.commands.route import Fleet, Router
from service.commands.search import search
from service.commands.send import send
from service.commands.upload import upload
from service.contract import Problem, Verb
from service.errors import MailbusError, Transient
from service.observe import log, metrics

SERVICE: Final = "mailbus"
RETRY_S: Final = 1.0
PASSED_ON_S: Final = 5.0
Command = Callable[[Context, Account, bytes, Mapping[str, str]], Awaitable[bytes]]
COMMANDS: Final[dict[Verb, Command]] = {
    Verb.SEND: send,
    Verb.MAILBOXES: mailboxes,
    Verb.SEARCH: search,
    Verb.GET: get,
    Verb.FLAGS: flags,
    Verb.COPY: copy,
    Verb.MOVE: move,
    Verb.DELETE: delete,
    Verb.APPEND: append,
    Verb.UPLOAD: upload,
    Verb.RESYNC: resync,
    Verb.HELD: held,
    Verb.CANCEL: cancel,
    Verb.RELEASE: release,
}
# Verbs that would do a thing twice: the same id gets the same answer.
ONCE: Final = frozenset({Verb.COPY, Verb.MOVE, Verb.DELETE, Verb.APPEND})


async def serve_commands(context: Context, fleet: Fleet, served: asyncio.Event) -> None:
    """Answer commands until cancelled: those for all, and those that others pass on for the accounts that are here.

    Sets `served` once questions reach it.
    """
    # Whoever has the account gives up first: its answer says more.
    router = Router(context.bus, fleet, context.clock, limit_s=COMMAND_LIMIT_S + PASSED_ON_S)

    async def answer(verb: Verb, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        account = subject.split(".")[-2]
        try:
            known = await router.knows(account)
        except Transient as exc:
            raise answer_of(exc) from exc
        if not known:
            with _measured(context, verb):
                raise error(404, [Problem("account", "no such account here")])
        found = await router.find(account, verb, payload, headers)
        if isinstance(found, bytes):
            return found
        with _measured(context, verb):
            return await _run(context, verb, found, payload, headers)

    async def answer_here(verb: Verb, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        account = subject.split(".")[-2]
        with _measured(context, verb):
            return await _run(context, verb, await router.own(account), payload, headers)

    subjects = context.bus.subjects
    endpoints = {str(verb): (subjects.cmd("*", verb), partial(answer, verb)) for verb in COMMANDS}
    endpoints |= {
        f"{verb}-here": (subjects.cmd_at(fleet.instance, "*", verb), partial(answer_here, verb)) for verb in COMMANDS
    }
    while True:
        try:
            async with serve(context.bus.nc, name=SERVICE, version=__version__, endpoints=endpoints):
                served.set()
                await asyncio.Event().wait()
        except Transient as exc:
            log.warning("commands_not_served", error=str(exc))
            await asyncio.sleep(RETRY_S)


@contextmanager
def _measured(context: Context, verb: Verb) -> Iterator[None]:
    """Count an answer, where it is made."""
    began = context.clock.monotonic()
    code = 500
    try:
        yield
        code = 200
    except ServiceError as exc:
        code = exc.code
        raise
    finally:
        metrics.COMMANDS.labels(verb=verb, code=code).inc()
        metrics.COMMAND_SECONDS.labels(verb=verb).observe(context.clock.monotonic() - began)


async def _run(context: Context, verb: Verb, account: Account, payload: bytes, headers: Mapping[str, str]) -> bytes:
    id = headers.get(COMMAND_ID)

    def work() -> Awaitable[bytes]:
        return COMMANDS[verb](context, account, payload, headers)

    try:
        async with account.in_hand.within(COMMAND_LIMIT_S):
            if id and verb in ONCE:
                return await context.answered.once(account.id, f"{verb} {id}", payload, work)
            return await work()
    except TimeoutError as exc:
        why = "cut short: its account ends here" if account.in_hand.ending else f"not done within {COMMAND_LIMIT_S:g} s"
        message = f"{why}: it may be done in part; look, then ask again"
        raise error(504, [Problem("", message)]) from exc
    except MailbusError as exc:
        raise answer_of(exc) from exc
