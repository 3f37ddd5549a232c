"""`mailbus accounts add|set|remove|pause|resume|list|reseal`: accounts of the running service, over the bus."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from service.cli.words import AccountArgument, ConfigFile, Declined, aside, finish, on_bus, settings_of
from service.contract import AccountsVerb
from service.errors import EX_FAILURE

if TYPE_CHECKING:
    from service.bus import Bus
    from service.settings import Settings

TIMEOUT_S: Final = 10.0
PUTS: Final = (AccountsVerb.ADD, AccountsVerb.SET)
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="One account in YAML, as in the settings file; - reads standard input.")
]


def register(app: typer.Typer) -> None:
    """Add the words to `mailbus accounts`."""
    app.command()(add)
    app.command("set")(change)
    app.command()(remove)
    app.command()(pause)
    app.command()(resume)
    app.command("list")(show)
    app.command()(reseal)


def add(file: FileArgument, config: ConfigFile = None) -> None:
    """Add an account, checked as the settings file is; all processes take it at once.

    Example:  mailbus accounts add support.yaml -c mailbus.yaml
    """
    _ask(config, AccountsVerb.ADD, _account(file))


def change(file: FileArgument, config: ConfigFile = None) -> None:
    """Put another account in the place of one that was added under its id.

    Example:  mailbus accounts set support.yaml -c mailbus.yaml
    """
    _ask(config, AccountsVerb.SET, _account(file))


def remove(account: AccountArgument, config: ConfigFile = None) -> None:
    """Remove an account that was added. Its position stays: added again, it goes on there.

    Example:  mailbus accounts remove support -c mailbus.yaml
    """
    _ask(config, AccountsVerb.REMOVE, {"id": account})


def pause(account: AccountArgument, config: ConfigFile = None) -> None:
    """Read and send nothing for an account until it is resumed.

    Example:  mailbus accounts pause support -c mailbus.yaml
    """
    _ask(config, AccountsVerb.PAUSE, {"id": account})


def resume(account: AccountArgument, config: ConfigFile = None) -> None:
    """Go on with a paused account where it was.

    Example:  mailbus accounts resume support -c mailbus.yaml
    """
    _ask(config, AccountsVerb.RESUME, {"id": account})


def show(config: ConfigFile = None) -> None:
    """Show all accounts in JSON: where each stands, whose it is, whether it is paused.

    Example:  mailbus accounts list -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _listed(settings))


def reseal(config: ConfigFile = None) -> None:
    """Seal the secrets of all accounts that were added by the first of `seal.keys`, so that the others may go.

    Example:  mailbus accounts reseal -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _resealed(settings))


def _account(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{file}: cannot be read") from exc
    except yaml.YAMLError:
        # Never what PyYAML shows: it may hold a password.
        raise typer.BadParameter(f"{file}: no valid YAML") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file}: must hold one account: id, address, incoming, …")
    return found


def _ask(config: Path | None, verb: AccountsVerb, request: dict[str, Any]) -> None:
    settings = settings_of(config)
    finish(lambda: _answered(settings, verb, request))


async def _answered(settings: "Settings", verb: AccountsVerb, request: dict[str, Any]) -> int:
    async with on_bus(settings) as bus:
        answer = await _answer(bus, verb, request)
    if answer is None:
        return EX_FAILURE
    typer.echo(answer.decode())
    if verb in PUTS and json.loads(answer).get("paused"):
        id = request.get("id")
        aside(f"mailbus: {id} is paused, as it was before: mailbus accounts resume {id}", style="yellow")
    return 0


async def _listed(settings: "Settings") -> int:
    async with on_bus(settings) as bus:
        found = await accounts_of(bus)
    if found is None:
        return EX_FAILURE
    typer.echo(json.dumps({"list": found}))
    return 0


async def accounts_of(bus: "Bus") -> list[dict[str, Any]] | None:
    """All accounts that a running process knows, however many answers they take; None where it refuses, which is said
    then. Raises Transient where nobody answers."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await _answer(bus, AccountsVerb.LIST, {"after": found[-1]["id"]} if found else {})
        if answer is None:
            return None
        page = json.loads(answer)
        found += page["list"]
        if not page["more"]:
            return found


async def _resealed(settings: "Settings") -> int:
    after = ""
    async with on_bus(settings) as bus:
        while True:
            answer = await _answer(bus, AccountsVerb.RESEAL, {"after": after})
            if answer is None:
                return EX_FAILURE
            page = json.loads(answer)
            after = page["after"]
            if not page["more"]:
                return 0


async def _answer(bus: "Bus", verb: AccountsVerb, request: dict[str, Any]) -> bytes | None:
    """What a process answers; None where it refuses, which is said then."""
    from service.bus import failure_of

    payload = json.dumps(request, default=str).encode()
    if len(payload) > bus.max_payload:
        raise Declined(f"{len(payload)} bytes, and NATS takes {bus.max_payload} at once", where=verb)
    answer = await bus.request(bus.subjects.admin_accounts(verb), payload, timeout_s=TIMEOUT_S)
    if (failed := failure_of(answer.payload, answer.headers)) is None:
        return answer.payload
    aside(f"mailbus: {failed.code} {failed.what}", style="red")
    for problem in json.loads(answer.payload or b"{}").get("problems", []):
        aside(f"  {problem['field']}: {problem['message']}", style="")
    return None
