"""`mailbus accounts`: what the running process shows of all its accounts, page by page as it gives them."""

from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.admin import AccountSnapshot, AccountsPage, severity
from service.errors import Transient
from service.settings import Settings

TIMEOUT_S: Final = 10.0
PIPE_CHARS: Final = 400
# Far more than mailbus puts into one page: whatever else may listen there.
PAGE_LIMIT_BYTES: Final = 16 * 1024 * 1024
STYLES: Final = {"connected": "green", "disconnected": "yellow", "degraded": "yellow", "auth_failed": "red"}

_PAGE: Final = msgspec.json.Decoder(AccountsPage)


async def show_accounts(settings: Settings, *, as_json: bool) -> int:
    """Print the accounts of the process that listens where settings say; of a page those in trouble first."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_CHARS  # nobody wants a word cut in two for `grep`
    shown = 0
    async for page in _pages(settings):
        accounts = sorted(page.accounts, key=lambda account: (severity(account), account.id))
        if as_json:
            # One array, one account a line.
            for account in accounts:
                typer.echo(("[" if shown == 0 else ",") + msgspec.json.encode(account).decode())
                shown += 1
        else:
            console.print(_table(accounts))
    if as_json:
        typer.echo("]" if shown else "[]")
    return 0


def _table(accounts: list[AccountSnapshot]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("account", "state", "process", "mailbox", "announced", "behind", "sync", "last event", "last error"):
        table.add_column(
            column, justify="right" if column in {"announced", "behind"} else "left", no_wrap=column != "last error"
        )
    for account in accounts:
        state = Text(account.state, style=STYLES.get(account.state, ""))
        first = (account.id, state, account.owner or "")
        error = Text(account.last_error)
        if not account.mailboxes:
            what = "(sender)" if account.sender is not None else ""
            table.add_row(*first, what, "", "", "", "", error)
        for mailbox in account.mailboxes:
            at = mailbox.last_event_at.isoformat()[:19] if mailbox.last_event_at else ""
            counts = (str(mailbox.announced), str(mailbox.behind), mailbox.sync)
            table.add_row(*first, Text(mailbox.name), *counts, at, error)
            first, error = ("", Text(""), ""), Text("")
    return table


async def _pages(settings: Settings) -> AsyncIterator[AccountsPage]:
    url = f"http://{settings.http.listen}/accounts"
    after: str | None = ""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as client:
            while after is not None:
                async with client.get(url, params={"after": after}, raise_for_status=True) as response:
                    page = _PAGE.decode(await _bounded(response.content))
                yield page
                after = page.after
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeError) as exc:
        raise Transient(
            "no mailbus answers there", where=url, remedy="is it running? with the same http.listen in its settings?"
        ) from exc


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    found = bytearray()
    async for chunk in content.iter_any():
        found += chunk
        if len(found) > PAGE_LIMIT_BYTES:
            raise aiohttp.ClientPayloadError("more than mailbus would say")
    return bytes(found)
