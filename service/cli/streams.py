"""`mailbus streams print|permissions`: what mailbus needs on NATS, for a NATS where it may make nothing itself."""

import json
from enum import StrEnum
from typing import Annotated, Final

import typer

from service.cli.words import ConfigFile, account_id, settings_of
from service.contract import Subjects

streams_app: Final = typer.Typer(
    no_args_is_help=True,
    help="What mailbus needs on NATS: streams, rights.\n\nExample:  mailbus streams print -c mailbus.yaml",
)


class Role(StrEnum):
    """Whose rights are printed."""

    MAILBUS = "mailbus"
    READER = "reader"
    REQUESTER = "requester"
    UPLOADER = "uploader"


@streams_app.callback()
def streams() -> None:
    """What mailbus needs on NATS: streams, buckets, and who may do what."""


@streams_app.command("print")
def show(config: ConfigFile = None) -> None:
    """Print the command that makes each stream and bucket as the settings want it; changes nothing.

    Example:  mailbus streams print -c mailbus.yaml | sh
    """
    from service.build import stream_options
    from service.bus import wanted_streams

    settings = settings_of(config)
    wanted = wanted_streams(Subjects(settings.nats.prefix), stream_options(settings), settings.nats.replicas)
    for stream in wanted:
        # A bucket is a stream; as JSON nothing of it is lost in options that a version of `nats` does not have.
        typer.echo(f"nats stream add {stream['name']} --config /dev/stdin <<'END'")
        typer.echo(json.dumps(stream, indent=2))
        typer.echo("END")


@streams_app.command()
def permissions(
    role: Annotated[Role, typer.Argument(help="Whose.")] = Role.MAILBUS,
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="A reader's durable consumers, and the inbox of whoever it is.")] = "crm",
    account: Annotated[str, typer.Option(help="The account that a requester sends from.")] = "support",
) -> None:
    """Print what a user of NATS may do, for its configuration: mailbus itself, a reader of events, a requester.

    An uploader stores files that are larger than a message; it could overwrite and remove all blobs.

    Example:  mailbus streams permissions reader --name crm -c mailbus.yaml
    """
    from service.bus import mailbus_permissions, reader_permissions, requester_permissions, uploader_permissions

    subjects = Subjects(settings_of(config).nats.prefix)
    name, account = account_id(name), account_id(account)
    match role:
        case Role.MAILBUS:
            typer.echo(mailbus_permissions(subjects))
        case Role.READER:
            typer.echo(reader_permissions(subjects, name))
        case Role.REQUESTER:
            typer.echo(requester_permissions(subjects, name, account))
        case Role.UPLOADER:
            typer.echo(uploader_permissions(subjects, name))
