"""`mailbus erase message|address`: mail, or all that names an address, out of NATS."""

import getpass
import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from service.cli.words import AccountArgument, ConfigFile, account_id, aside, finish, on_bus, settings_of
from service.clock import SystemClock
from service.contract import rfc3339
from service.errors import EX_FAILURE

if TYPE_CHECKING:
    from service.erase import Found, Wanted
    from service.settings import Settings

erase_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Erase mail, or all that names an address, out of NATS.\n\nExample:  mailbus erase address ada@example.org",
)
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only what would go is counted.")]
LABELS: Final = {
    "mails": "mails",
    "events": "their events in the log",
    "blobs": "blobs that nothing else names",
    "statuses": "statuses of requests and states of accounts",
    "dead_letters": "dead letters",
    "requests": "requests, kept under a pseudonym so that none is sent again",
    "copies": "copies that wait for a Sent mailbox",
    "left_behind": "objects of such copies, and of requests that are over, in the outbox",
}
OUT_OF_REACH: Final = (
    "Not in reach: the mailboxes and relays themselves, consumers and what they made of it, backups of NATS, logs;"
    " attachments of mail that names the address nowhere else, what requesters uploaded and no erased mail had,"
    " suppressions, the names of mailboxes and what accounts are set up with."
)


@erase_app.command()
def message(
    account: AccountArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of Emails, as events have them.")],
    config: ConfigFile = None,
    yes: Yes = False,
) -> None:
    """Erase mails: their events, their dead letters, and the blobs that only they name.

    Example:  mailbus erase message support iAbc123 --yes -c mailbus.yaml
    """
    from service.erase import wanted_mails

    settings = settings_of(config)
    finish(lambda: _erase(settings, wanted_mails(account, ids), {"ids": ids}, yes=yes))


@erase_app.command()
def address(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A mail address.")],
    config: ConfigFile = None,
    account: Annotated[str | None, typer.Option(help="Only what is this account's.")] = None,
    yes: Yes = False,
) -> None:
    """Erase every mail, status and dead letter that names an address, and the address from finished requests.

    Example:  mailbus erase address ada@example.org --yes -c mailbus.yaml
    """
    if not all(address.rpartition("@")) or not address.isprintable() or " " in address:
        raise typer.BadParameter("local@domain is wanted")
    from service.erase import wanted_address

    settings = settings_of(config)
    # The line that is kept as a proof must not hold what was erased.
    named = {"address_sha256": hashlib.sha256(address.lower().encode()).hexdigest()}
    whose = "*" if account is None else account_id(account)
    finish(lambda: _erase(settings, wanted_address(address, whose), named, yes=yes))


async def _erase(settings: "Settings", wanted: "Wanted", named: Mapping[str, object], *, yes: bool) -> int:
    from service.erase import erase, find

    clock = SystemClock()
    async with on_bus(settings) as bus:
        found = await find(bus, wanted)
        _show(found)
        if not yes:
            typer.echo("Nothing was erased: --yes does it.")
            return 0
        done = await erase(bus, wanted, found, clock)
    audit: dict[str, object] = {"event": "erased", "at": rfc3339(clock.now()), "by": _person()}
    audit |= {"prefix": settings.nats.prefix, "account": wanted.account, **named, **asdict(done)}
    typer.echo(json.dumps(audit))
    return EX_FAILURE if found.under_way else 0


def _show(found: "Found") -> None:
    for name, count in found.counts.items():
        typer.echo(f"{count:>8}  {LABELS[name]}")
    if found.shared:
        typer.echo(f"{len(found.shared):>8}  blobs stay: other mail has the same content")
    if found.under_way:
        typer.echo(f"{len(found.under_way):>8}  requests stay: they are not sent yet. Wait or cancel them, then again")
    aside(OUT_OF_REACH)


def _person() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        name = "?"
    return f"{name}@{socket.gethostname()}"
