"""The words of the command line, each with its options and an example. One function a word."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from service import __version__
from service.cli.erase import erase_app
from service.cli.letters import dead_app
from service.cli.manage import register
from service.cli.requests import held_app
from service.cli.streams import streams_app
from service.cli.suppressions import suppressions_app
from service.cli.words import AccountArgument, ConfigFile, account_id, finish, settings_of
from service.contract import Verb

app: Final = typer.Typer(
    name="mailbus",
    help="Mailboxes become events on NATS JetStream; requests on the bus become mail.\n\nExample:  mailbus demo --once",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


class Document(StrEnum):
    """What `mailbus schema` prints."""

    SETTINGS = "settings"
    EVENTS = "events"
    ASYNCAPI = "asyncapi"


def main() -> None:
    """The console script."""
    app()


@app.callback(invoke_without_command=True)
def version(
    shown: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Print the version where that is asked for."""
    if shown:
        typer.echo(f"mailbus {__version__}")
        raise typer.Exit


@app.command()
def run(config: ConfigFile = None) -> None:
    """Run the service until SIGTERM.

    Example:  mailbus run --config mailbus.yaml
    """
    from service.app import run as run_application
    from service.reload import signature_of

    was = signature_of(config) if config else None
    settings = settings_of(config)
    finish(lambda: run_application(settings, file=config, was=was))


@app.command()
def check(config: ConfigFile = None) -> None:
    """Validate the settings, connect to everything they name, and say what works.

    Example:  mailbus check --config mailbus.yaml
    """
    from service.cli.check import show_check

    settings = settings_of(config)
    finish(lambda: show_check(settings))


@app.command()
def tail(
    config: ConfigFile = None,
    account: Annotated[str | None, typer.Option(help="Only this account's events.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    whole: Annotated[bool, typer.Option("--all", help="From the beginning of the stream.")] = False,
) -> None:
    """Show events as they come: new mail, and what became of requests.

    Example:  mailbus tail --config mailbus.yaml --account support --json
    """
    from service.cli.tail import show_tail

    settings = settings_of(config)
    whose = "*" if account is None else account_id(account)
    finish(lambda: show_tail(settings, account=whose, as_json=as_json, whole=whole))


@app.command()
def send(
    account: AccountArgument,
    config: ConfigFile = None,
    to: Annotated[list[str] | None, typer.Option(help="A recipient; may be repeated.")] = None,
    subject: Annotated[str, typer.Option(help="The subject.")] = "",
    text: Annotated[str | None, typer.Option(help="The text; - reads standard input.")] = None,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A whole request in JSON instead; - reads standard input.")
    ] = None,
    request_id: Annotated[str | None, typer.Option("--id", help="The same id twice is sent once.")] = None,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the status.")] = 60.0,
) -> None:
    """Send a mail through the bus and wait for what becomes of it.

    Example:  mailbus send support --to you@example.org --subject Hello --text "It works" -c mailbus.yaml
    """
    from service.cli.send import request_from_flags, send_and_wait

    settings = settings_of(config)
    if request is None and not to:
        raise typer.BadParameter("give --to, or a whole --request")
    if request is not None and (to or subject or text is not None or request_id is not None):
        raise typer.BadParameter("--request is a whole request: it goes without --to, --subject, --text and --id")
    if request is not None:
        payload = sys.stdin.buffer.read() if str(request) == "-" else _read(request)
    else:
        words = sys.stdin.read() if text == "-" else text
        payload = request_from_flags(to or [], subject, words or "", request_id)
    finish(lambda: send_and_wait(settings, account, payload, wait_s=wait_s))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise typer.BadParameter(f"{file}: {exc.strerror}") from exc


accounts_app: Final = typer.Typer(invoke_without_command=True)
app.add_typer(accounts_app, name="accounts")
register(accounts_app)
app.add_typer(streams_app, name="streams")
app.add_typer(held_app, name="held")
app.add_typer(dead_app, name="dead")
app.add_typer(suppressions_app, name="suppressions")
app.add_typer(erase_app, name="erase")


@accounts_app.callback()
def accounts(
    context: typer.Context,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show all accounts of the running process: state, progress, last error.

    By id, 500 at a time and fewer where they have many mailboxes; of each such page those in trouble come first.
    With --json it is one array, an account a line.

    Example:  mailbus accounts --config mailbus.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from service.cli.accounts import show_accounts

    settings = settings_of(config)
    finish(lambda: show_accounts(settings, as_json=as_json))


@accounts_app.command()
def discover(address: Annotated[str, typer.Argument(help="A mail address.")]) -> None:
    """Ask DNS, the provider and Thunderbird's list where an address's mail is, and show settings for it.

    Example:  mailbus accounts discover support@example.com
    """
    from service.cli.discover import show_discovered

    finish(lambda: show_discovered(address))


@app.command()
def cmd(
    account: AccountArgument,
    verb: Annotated[Verb, typer.Argument(help="What shall be done.")],
    body: Annotated[str, typer.Argument(help="The request in JSON; - reads standard input.")] = "{}",
    config: ConfigFile = None,
) -> None:
    """Send a command over the bus and print the answer.

    Example:  mailbus cmd support search '{"mailbox": "INBOX", "filter": {"from": "ada"}}' -c mailbus.yaml

    \b
    What each verb takes (docs/contract.md says all of it):
      mailboxes  {}
      search     {"mailbox": "INBOX", "filter": {"notKeyword": "$seen"}}
      get        {"ids": ["…"], "properties": ["from", "subject"]}
      flags      {"ids": ["…"], "add": ["$seen"], "remove": ["$flagged"]}
      copy       {"ids": ["…"], "mailbox": "Archive"}
      move       {"ids": ["…"], "mailbox": "Archive"}
      delete     {"ids": ["…"]}
      append     {"mailbox": "Drafts", "request": {"text": "To be written"}}
      upload     {"name": "bill.pdf", "content": "<base64>"}
      resync     {"mailbox": "INBOX"}
      send       {"to": [{"email": "you@example.org"}], "text": "Hello"}
      held       {}
      cancel     {"id": "order-4711"}
      release    {"id": "order-4711"}
    """
    from service.cli.send import command

    settings = settings_of(config)
    payload = (sys.stdin.read() if body == "-" else body).encode()
    finish(lambda: command(settings, account, verb, payload))


@app.command()
def schema(document: Annotated[Document, typer.Argument(help="Which document.")] = Document.SETTINGS) -> None:
    """Print a JSON Schema: of the settings, of the events, or the AsyncAPI document.

    Example:  mailbus schema events > events.json
    """
    from service.contract import asyncapi, event_schema
    from service.settings import settings_schema

    made = {Document.SETTINGS: settings_schema, Document.EVENTS: event_schema, Document.ASYNCAPI: asyncapi}
    typer.echo(json.dumps(made[document](), indent=2, ensure_ascii=False))


def _listen_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise typer.BadParameter("write HOST:PORT, such as 127.0.0.1:8080; port 0 takes any free one")
    return value


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the loop, with exit 0 where all went well.")] = False,
    listen: Annotated[
        str, typer.Option(help="Where the status page is served.", callback=_listen_address)
    ] = "127.0.0.1:8080",
) -> None:
    """Run the whole loop before your eyes, with servers of its own on this machine.

    Example:  mailbus demo --once
    """
    from service.demo import run_demo

    finish(lambda: run_demo(once=once, listen=listen))
