"""`mailbus tail`: events as they come, a line each."""

import json
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text

from service.bus import Bus, Followed
from service.cli.words import on_bus
from service.contract import EventType
from service.settings import Settings
from service.tasks import TaskGroup

COLOURS: Final = {
    "received": "green",
    "reset": "yellow",
    "sent": "green",
    "deferred": "yellow",
    "failed": "red",
    "uncertain": "magenta",
    "auth_failed": "red",
    "degraded": "yellow",
}


class _Lines(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more: said as printing says it, where rich would end the process with 1."""
        raise BrokenPipeError


async def show_tail(settings: Settings, *, account: str, as_json: bool, whole: bool) -> int:
    """Print events and statuses until interrupted."""
    console = _Lines(soft_wrap=True, highlight=False)

    async def show(bus: Bus, stream: str, subject: str) -> None:
        async for message in bus.follow(stream, subject, after=0 if whole else None):
            if as_json:
                typer.echo(json.dumps(as_object(message), ensure_ascii=False))
            else:
                console.print(as_line(message))

    async with on_bus(settings) as bus, TaskGroup() as group:
        subjects = bus.subjects
        group.create_task(show(bus, subjects.stream_in, f"{subjects.prefix}.in.{account}.*.*"))
        group.create_task(show(bus, subjects.stream_status, subjects.status(account, "*")))
        group.create_task(show(bus, subjects.stream_status, subjects.account(account, "*")))
    return 0


def as_object(message: Followed) -> dict[str, Any]:
    """An event with its envelope."""
    try:
        body = json.loads(message.payload)
    except ValueError:
        body = None
    return {"seq": message.seq, "subject": message.subject, "headers": message.headers, "body": body}


def as_line(message: Followed) -> Text:
    """An event for a person: time, kind, where, what. Control characters of strangers are not printed."""
    body = as_object(message)["body"] or {}
    kind = message.subject.rpartition(".")[2]
    where = message.subject.partition(".")[2]
    match message.headers.get("ce-type", "").removeprefix("mailbus."):
        case EventType.RECEIVED:
            sender = (body.get("from") or [{}])[0].get("email", "?")
            what = f"{sender}: {body.get('subject') or '(no subject)'}"
        case EventType.CHANGED:
            what = f"{body.get('id')} {' '.join(body.get('keywords') or {}) or '(no keywords)'}"
        case EventType.REMOVED:
            what = str(body.get("id"))
        case EventType.RESET:
            what = f"{body.get('reason')}, uidvalidity {body.get('uidvalidity')}"
        case EventType.STATUS:
            replies = body.get("deliveryStatus") or {}
            what = f"{body.get('id')} " + "; ".join(f"{to}: {of.get('smtpReply')}" for to, of in replies.items())
        case EventType.ACCOUNT:
            what = body.get("detail") or ""
        case _:
            what = ""
    shown = "".join(char if char.isprintable() else "�" for char in what)
    return Text.assemble(
        (f"{message.stored_at:%H:%M:%S} ", "dim"),
        (f"{kind:<11} ", COLOURS.get(kind, "cyan")),
        (f"{where} ", "dim"),
        shown,
    )
