"""What all words share: their settings, their end, how an error is said. Used by every file with words in it.

What a word works with is imported where it works: `mailbus --help` and a wrong word need none of it.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.contract import ACCOUNT_ID
from service.errors import EX_CONFIG, EX_FAILURE, MailbusError, Permanent, verdict_of

if TYPE_CHECKING:
    from service.bus import Bus
    from service.settings import Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings in YAML; MAILBUS_… variables win.", dir_okay=False),
]


def aside(text: str, *, style: str = "dim") -> None:
    """Say on standard error what is no answer."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(text, style=style, markup=False)


def settings_of(file: Path | None) -> "Settings":
    """Settings, or all that is wrong with them on standard error and exit 78."""
    from service.settings import SettingsInvalid, load_settings

    try:
        return load_settings(file)
    except SettingsInvalid as exc:
        for problem in exc.problems:
            aside(f"mailbus: {problem}", style="red")
        raise typer.Exit(EX_CONFIG) from None


class Declined(Permanent):
    """What was asked for cannot be done; neither the settings nor NATS are what is wrong."""


def account_id(value: str) -> str:
    """An account's id as it was written. Raises BadParameter."""
    if not ACCOUNT_ID.fullmatch(value):
        raise typer.BadParameter("an account's id is 1 to 64 letters, digits, - or _; mailbus accounts lists them")
    return value


AccountArgument = Annotated[str, typer.Argument(help="The account.", callback=account_id)]


@asynccontextmanager
async def on_bus(settings: "Settings") -> AsyncIterator["Bus"]:
    """NATS as settings name it. Raises Permanent where that is what is wrong, Declined of what is done there."""
    from service.build import nats_options
    from service.bus import open_bus

    async with open_bus(nats_options(settings), None) as bus:
        try:
            yield bus
        except Permanent as exc:
            raise Declined(exc.what, where=exc.where, remedy=exc.remedy) from exc


def _failed(error: MailbusError) -> int:
    aside(f"mailbus: {error}", style="red")
    return EX_CONFIG if isinstance(error, Permanent) and not isinstance(error, Declined) else EX_FAILURE


def finish(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run to the end and leave with its code; an error is said in one line."""
    import uvloop

    from service.observe import set_up_logs

    set_up_logs("warning")  # the service itself sets up what its settings say
    try:
        code = uvloop.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    except (Exception, BaseExceptionGroup) as exc:
        # Commands that do two things at once fail as a group.
        error = verdict_of(exc) if isinstance(exc, BaseExceptionGroup) else exc
        if isinstance(error, BrokenPipeError):
            # `mailbus tail | head`: no complaint about it, nor by Python as it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        elif isinstance(error, MailbusError):
            code = _failed(error)
        else:
            raise
    raise typer.Exit(code)
