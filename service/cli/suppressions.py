"""`mailbus suppressions list|add|remove`: addresses that an account sends nothing to."""

import difflib
from typing import TYPE_CHECKING, Annotated, Final

import typer

from service.cli.manage import accounts_of
from service.cli.words import AccountArgument, ConfigFile, Declined, aside, finish, on_bus, settings_of
from service.clock import SystemClock
from service.errors import Transient

if TYPE_CHECKING:
    from service.bus import Bus
    from service.settings import Settings

suppressions_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Addresses that an account sends nothing to.\n\nExample:  mailbus suppressions list support -c mailbus.yaml",
)
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="A mail address.")]
NO_ADDRESS: Final = "no mail address"
# So many names are read; more are counted.
SHOWN_LIMIT: Final = 20


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
    from service.outbound import Suppressions

    async with on_bus(settings) as bus:
        async for one in Suppressions(bus, account, SystemClock()).all():
            typer.echo(f"{one.email}  {one.at:%Y-%m-%d %H:%M:%S}  {one.reason}")
    return 0


async def _change(settings: "Settings", account: str, address: str, reason: str | None) -> int:
    """`reason`: of an address that is added; None: it is removed."""
    from service.outbound import Suppressions

    if not all(address.rpartition("@")) or not address.isprintable() or " " in address:
        raise Declined(NO_ADDRESS, where=address[:80], remedy="local@domain is wanted")
    async with on_bus(settings) as bus:
        if reason is not None:
            await _check_known(settings, bus, account)
        suppressions = Suppressions(bus, account, SystemClock())
        try:
            if reason is not None:
                typer.echo("added" if await suppressions.add(address, reason) else "it is there already")
            else:
                typer.echo("removed" if await suppressions.remove(address) else "it was not there")
        except ValueError as exc:
            raise Declined(f"{NO_ADDRESS}: {exc}", where=address[:80]) from exc
    return 0


async def _check_known(settings: "Settings", bus: "Bus", account: str) -> None:
    """Raises Declined where there is no such account: what is added for one that is mistyped holds nothing back."""
    if any(one.id == account for one in settings.accounts):
        return
    try:
        known = await accounts_of(bus)
    except Transient as exc:
        known = None
        aside(f"mailbus: {exc}", style="yellow")
    if known is None:
        aside(f"mailbus: nobody says whether there is an account {account}; it is added all the same", style="yellow")
        return
    ids = sorted({one["id"] for one in known} | {one.id for one in settings.accounts})
    if account not in ids:
        shown = difflib.get_close_matches(account, ids, SHOWN_LIMIT, 0.6) or ids[:SHOWN_LIMIT]
        more = f" and {len(ids) - len(shown)} more" if len(ids) > len(shown) else ""
        raise Declined("no such account", where=account, remedy=f"there is {', '.join(shown) or 'none'}{more}")
