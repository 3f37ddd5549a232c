"""`mailbus streams print`: what mailbus needs on NATS, as commands, for a NATS where it may make nothing itself."""

import json
from typing import Final

import typer

from service.build import stream_options
from service.bus import wanted_streams
from service.cli.words import ConfigFile, settings_of
from service.contract import Subjects

streams_app: Final = typer.Typer(no_args_is_help=True, help="The streams and buckets that mailbus needs.")


@streams_app.callback()
def streams() -> None:
    """The streams and buckets that mailbus needs."""


@streams_app.command("print")
def show(config: ConfigFile = None) -> None:
    """Print the command that makes each stream and bucket as the settings want it; changes nothing.

    Example:  mailbus streams print -c mailbus.yaml | sh
    """
    settings = settings_of(config)
    wanted = wanted_streams(Subjects(settings.nats.prefix), stream_options(settings), settings.nats.replicas)
    for stream in wanted:
        # A bucket is a stream; as JSON nothing of it is lost in options that a version of `nats` does not have.
        typer.echo(f"nats stream add {stream['name']} --config /dev/stdin <<'END'")
        typer.echo(json.dumps(stream, indent=2))
        typer.echo("END")
