"""`mailbus suppressions list|add|remove`: addresses that an account sends nothing to."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from service.cli.words import ConfigFile, finish, settings_of
from service.clock import SystemClock
from service.contract import ACCOUNT_ID
from service.errors import Permanent

if TYPE_CHECKING:
    from service.settings import Settings

suppressions_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Addresses that an account sends nothing to.\n\nExample:  mailbus suppressions list support -c mailbus.yaml",
)
AccountArgument = Annotated[str, typer.Argument(help="The account that sends.")]
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="A mail address.")]
NO_ADDRESS: Final = "no mail address"


@suppressions_app.command("list")
def list_all(account: AccountArgument, config: ConfigFile = None) -> None:
    """Show the list of an account: address, since when, why.

    Example:  mailbus suppressions list shop -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _list(settings, account))


@suppressions_app.command()
def add(
    account: AccountArgument,
    address: AddressArgument,
    config: ConfigFile = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the list.")] = "by hand",
) -> None:
    """Send nothing to an address any more; its requests fail as suppressed, within five seconds.

    Example:  mailbus suppressions add shop gone@example.org --reason "moved away" -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _change(settings, account, address, reason))


@suppressions_app.command()
def remove(account: AccountArgument, address: AddressArgument, config: ConfigFile = None) -> None:
    """Send to an address again.

    Example:  mailbus suppressions remove shop back@example.org -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _change(settings, account, address, None))


async def _list(settings: "Settings", account: str) -> int:
    from service.build import nats_options
    from service.bus import open_bus
    from service.outbound import Suppressions

    _check(account)
    async with open_bus(nats_options(settings), None) as bus:
        async for one in Suppressions(bus, account, SystemClock()).all():
            typer.echo(f"{one.email}  {one.at:%Y-%m-%d %H:%M:%S}  {one.reason}")
    return 0


async def _change(settings: "Settings", account: str, address: str, reason: str | None) -> int:
    """`reason`: of an address that is added; None: it is removed."""
    from service.build import nats_options
    from service.bus import open_bus
    from service.outbound import Suppressions

    _check(account)
    if not all(address.rpartition("@")) or not address.isprintable() or " " in address:
        raise Permanent(NO_ADDRESS, where=address[:80], remedy="local@domain is wanted")
    async with open_bus(nats_options(settings), None) as bus:
        suppressions = Suppressions(bus, account, SystemClock())
        try:
            if reason is not None:
                typer.echo("added" if await suppressions.add(address, reason) else "it is there already")
            else:
                typer.echo("removed" if await suppressions.remove(address) else "it was not there")
        except ValueError as exc:
            raise Permanent(f"{NO_ADDRESS}: {exc}", where=address[:80]) from exc
    return 0


def _check(account: str) -> None:
    if not ACCOUNT_ID.fullmatch(account):
        raise Permanent(f"no account: {account}"[:200], remedy="mailbus accounts lists the accounts")
