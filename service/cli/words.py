"""What all words share: their settings, their end, how an error is said. Used by every file with words in it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console

from service.app import EX_CONFIG, EX_FAILURE
from service.build import nats_options
from service.bus import Bus, open_bus
from service.contract import ACCOUNT_ID
from service.errors import MailbusError, Permanent, verdict_of
from service.observe import set_up_logs
from service.settings import Settings, SettingsInvalid, load_settings

errors: Final = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings in YAML; MAILBUS_… variables win.", dir_okay=False),
]


def settings_of(file: Path | None) -> Settings:
    """Settings, or all that is wrong with them on standard error and exit 78."""
    try:
        return load_settings(file)
    except SettingsInvalid as exc:
        for problem in exc.problems:
            errors.print(f"mailbus: {problem}", style="red", markup=False)
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
async def on_bus(settings: Settings) -> AsyncIterator[Bus]:
    """NATS as settings name it. Raises Permanent where that is what is wrong, Declined of what is done there."""
    async with open_bus(nats_options(settings), None) as bus:
        try:
            yield bus
        except Permanent as exc:
            raise Declined(exc.what, where=exc.where, remedy=exc.remedy) from exc


def _failed(error: MailbusError) -> int:
    errors.print(f"mailbus: {error}", style="red", markup=False)
    return EX_CONFIG if isinstance(error, Permanent) and not isinstance(error, Declined) else EX_FAILURE


def finish(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run to the end and leave with its code; an error is said in one line."""
    set_up_logs("warning")  # the service itself sets up what its settings say
    try:
        code = uvloop.run(work())
    except MailbusError as exc:
        code = _failed(exc)
    except BaseExceptionGroup as failed:
        # Commands that do two things at once fail as a group.
        error = verdict_of(failed)
        if not isinstance(error, MailbusError):
            raise
        code = _failed(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # `mailbus tail | head`: no complaint about it
        code = 0
    raise typer.Exit(code)
