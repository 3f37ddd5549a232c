"""`mailbus held list|release|cancel`: requests of which nobody knows whether they were sent."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from service.cli.send import ask, command, failure
from service.cli.words import AccountArgument, ConfigFile, finish, on_bus, settings_of
from service.contract import Verb

if TYPE_CHECKING:
    from service.settings import Settings

held_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Requests on hold: list them, let them go, cancel them.\n\nExample:  mailbus held list support",
)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The request's id.")]


@held_app.command("list")
def list_held(
    account: AccountArgument,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the requests of an account whose mail may or may not have gone out.

    Example:  mailbus held list support -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _show_held(settings, account, as_json=as_json))


@held_app.command()
def release(account: AccountArgument, id: IdArgument, config: ConfigFile = None) -> None:
    """Send a request on hold again, at once; whoever has it already gets it twice.

    Example:  mailbus held release support order-4711 -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: command(settings, account, Verb.RELEASE, json.dumps({"id": id}).encode()))


@held_app.command()
def cancel(account: AccountArgument, id: IdArgument, config: ConfigFile = None) -> None:
    """Send a request to nobody who has not got it yet; says how far that was still possible.

    Example:  mailbus held cancel support order-4711 -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: command(settings, account, Verb.CANCEL, json.dumps({"id": id}).encode()))


async def _show_held(settings: "Settings", account: str, *, as_json: bool) -> int:
    found: list[dict[str, Any]] = []
    asked: dict[str, str] = {}
    async with on_bus(settings) as bus:
        while True:
            answer, failed = await ask(bus, account, Verb.HELD, json.dumps(asked).encode())
            if failed:
                return failure(failed)
            page = json.loads(answer)
            found += page["list"]
            if not page["more"]:
                break
            asked = {"after": page["next"]}
    if as_json:
        typer.echo(json.dumps({"list": found, "more": False}))
        return 0
    for one in found:
        typer.echo(f"{one['id']}  attempt {one['attempt']}, expires {one['expiresAt']}: {', '.join(one['recipients'])}")
    return 0
