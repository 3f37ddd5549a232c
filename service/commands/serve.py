"""Requests on `mail.cmd.*.<verb>` → the verb's file, with the account found. Used by app.py."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from service import __version__
from service.bus import Bus, serve
from service.commands.errors import error
from service.commands.send import send
from service.contract import ACCOUNT_ID, Problem, SendLimits, Verb
from service.errors import Transient
from service.observe import log

SERVICE: Final = "mailbus"
RETRY_S: Final = 1.0
Command = Callable[[Bus, str, SendLimits, bytes, Mapping[str, str]], Awaitable[bytes]]
COMMANDS: Final[dict[Verb, Command]] = {Verb.SEND: send}


async def serve_commands(bus: Bus, accounts: Mapping[str, SendLimits]) -> None:
    """Answer commands until cancelled. `accounts`: those that send, looked at on every request."""

    async def answer(command: Command, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        account = subject.split(".")[-2]
        if not ACCOUNT_ID.fullmatch(account) or account not in accounts:
            raise error(404, [Problem("account", "no such account here")])
        return await command(bus, account, accounts[account], payload, headers)

    endpoints = {
        str(verb): (bus.subjects.cmd("*", verb), partial(answer, command)) for verb, command in COMMANDS.items()
    }
    while True:
        try:
            async with serve(bus.nc, name=SERVICE, version=__version__, endpoints=endpoints):
                await asyncio.Event().wait()
        except Transient as exc:
            log.warning("commands_not_served", error=str(exc))
            await asyncio.sleep(RETRY_S)
