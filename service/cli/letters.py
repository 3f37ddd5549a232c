"""`mailbus dead list|show|retry`: what could not be understood, from the stream of dead letters."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import unquote

import typer

from service.cli.words import ConfigFile, aside, finish, on_bus, settings_of
from service.contract import ACCOUNT_ID, DeadReason, RequestProblems, decode_request, encode
from service.errors import Permanent

if TYPE_CHECKING:
    from service.bus import Bus, Tail
    from service.settings import Settings

dead_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Dead letters: list them, show one, send its request again.\n\nExample:  mailbus dead list -c mailbus.yaml",
)
SeqArgument = Annotated[int, typer.Argument(metavar="SEQ", help="Its number in the list.", min=1)]
# What `dead list` shows unless all are wanted.
LATEST: Final = 100
# Of what is wrong in a request.
SHOWN_PROBLEMS: Final = 20
ID_LIMIT_CHARS: Final = 255


@dead_app.command("list")
def list_dead(
    config: ConfigFile = None,
    whole: Annotated[bool, typer.Option("--all", help=f"All of them, not the latest {LATEST}.")] = False,
) -> None:
    """Show the dead letters: number, time, reason, account, what was wrong.

    Example:  mailbus dead list -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _list(settings, whole=whole))


@dead_app.command()
def show(seq: SeqArgument, config: ConfigFile = None) -> None:
    """Print one dead letter as it was published; its headers go to standard error.

    Example:  mailbus dead show 17 -c mailbus.yaml > request.json
    """
    settings = settings_of(config)
    finish(lambda: _show(settings, seq))


@dead_app.command()
def retry(seq: SeqArgument, config: ConfigFile = None) -> None:
    """Send a dead letter's request again, under an id of its own; twice is once.

    What is wrong in itself has to be corrected first: `dead show`, an editor, `mailbus send --request`.

    Example:  mailbus dead retry 17 -c mailbus.yaml
    """
    settings = settings_of(config)
    finish(lambda: _retry(settings, seq))


async def _list(settings: "Settings", *, whole: bool) -> int:
    # Not a table of rich: that folds its columns where the output is no terminal.
    typer.echo(f"{'number':>8}  {'time':<19}  {'reason':<15}  {'account':<16}  what was wrong")
    async with on_bus(settings) as bus:
        last = (await bus.dead.bounds()).last_seq
        first = 0 if whole else max(0, last - LATEST)
        async for one in bus.dead.replay(bus.subjects.dead("*"), after=first, last=last):
            reason = one.subject.rpartition(".")[2]
            account = unquote(one.headers.get("Mail-Account") or one.headers.get("ce-source", ""))
            why = unquote(one.headers.get("Mail-Reason", ""))
            what = f"{reason:<15}  {_printable(account):<16}  {_printable(why)}"
            typer.echo(f"{one.seq:>8}  {one.time:%Y-%m-%d %H:%M:%S}  {what}")
    return 0


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text)


async def _show(settings: "Settings", seq: int) -> int:
    async with on_bus(settings) as bus:
        letter = await _letter(bus, seq)
        payload = await _payload(bus, letter)
    for name, value in letter.headers.items():
        aside(f"{name}: {_printable(unquote(value))}")
    # Whatever bytes they are; a line of its own for the prompt is the terminal's alone.
    typer.echo(payload, nl=sys.stdout.isatty())
    return 0


async def _retry(settings: "Settings", seq: int) -> int:
    async with on_bus(settings) as bus:
        letter = await _letter(bus, seq)
        if letter.subject not in {bus.subjects.dead(one) for one in DeadReason if one is not DeadReason.MESSAGE}:
            raise Permanent("no request", where=f"dead letter {seq}", remedy="mailbus cmd ACCOUNT resync for a mail")
        account = unquote(letter.headers.get("Mail-Account", ""))
        if not ACCOUNT_ID.fullmatch(account):
            raise Permanent("no account can have its name", where=f"dead letter {seq}", remedy="mailbus send")
        payload = await _payload(bus, letter)
        try:
            request = decode_request(payload)
        except RequestProblems as exc:
            for one in exc.problems[:SHOWN_PROBLEMS]:
                aside(f"mailbus: {one}", style="red")
            if (more := len(exc.problems) - SHOWN_PROBLEMS) > 0:
                aside(f"mailbus: and {more} more like these", style="red")
            remedy = "correct what `mailbus dead show` prints, then mailbus send --request"
            raise Permanent("the request is wrong in itself", where=f"dead letter {seq}", remedy=remedy) from exc
        # The old id is remembered as failed. The same letter gives the same id, so that twice is once.
        suffix = f".again-{seq}"
        id = (request.id or letter.headers.get("Mail-Request-Key", "letter"))[: ID_LIMIT_CHARS - len(suffix)] + suffix
        # No larger than it was: what just fitted into a message would fit no more.
        await bus.publish(bus.subjects.out(account), encode(json.loads(payload) | {"id": id}))
    typer.echo(f"queued for {account} as {id}")
    return 0


async def _letter(bus: "Bus", seq: int) -> "Tail":
    letter = await bus.dead.get(seq)
    if letter is None:
        raise Permanent(f"no dead letter {seq}", remedy="mailbus dead list")
    return letter


async def _payload(bus: "Bus", letter: "Tail") -> bytes:
    blob = letter.headers.get("Mail-Blob-Id")
    return await bus.blobs().get(blob) if blob else letter.payload
