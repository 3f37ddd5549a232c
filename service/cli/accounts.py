"""`mailbus accounts`: what the running process shows of its accounts, from its status page's own source."""

import asyncio
import json
from typing import Any, Final

import aiohttp
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.errors import Transient
from service.settings import Settings

TIMEOUT_S: Final = 10.0
STYLES: Final = {"connected": "green", "disconnected": "yellow", "degraded": "yellow", "auth_failed": "red"}


async def show_accounts(settings: Settings, *, as_json: bool) -> int:
    """Print the accounts of the process that listens where settings say."""
    shown = await _snapshot(settings)
    accounts: list[dict[str, Any]] = shown["snapshot"]["accounts"]
    if as_json:
        typer.echo(json.dumps(accounts, ensure_ascii=False))
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("account", "state", "mailbox", "announced", "behind", "sync", "last event", "last error"):
        table.add_column(column, justify="right" if column in {"announced", "behind"} else "left")
    for account in accounts:
        state = Text(account["state"], style=STYLES.get(account["state"], ""))
        rows = account["mailboxes"] or [{}]
        for i, mailbox in enumerate(rows):
            table.add_row(
                account["id"] if i == 0 else "",
                state if i == 0 else "",
                Text(mailbox.get("name", "(sender)")),
                str(mailbox.get("announced", "")),
                str(mailbox.get("behind", "")),
                mailbox.get("sync", ""),
                (mailbox.get("lastEventAt") or "")[:19],
                Text(account["lastError"] if i == 0 else ""),
            )
    Console(soft_wrap=True).print(table)
    return 0


async def _snapshot(settings: Settings) -> dict[str, Any]:
    url = f"http://{settings.http.listen}/events"
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    found: dict[str, Any] = json.loads(line[5:])
                    return found
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, ValueError) as exc:
        raise Transient(
            "no mailbus answers there", where=url, remedy="is it running? with the same http.listen in its settings?"
        ) from exc
    raise Transient("mailbus said nothing", where=url)
