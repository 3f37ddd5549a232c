"""`mailbus accounts` over a process of many accounts: all of them, a page at a time."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from service.admin import PAGE_LIMIT_ACCOUNTS, PAGE_LIMIT_MAILBOXES, AdminServer, Snapshot
from service.build import Work
from service.clock import SystemClock
from service.contract import AccountPart, AccountState, Subjects
from service.errors import AuthRefused
from service.fleet import AccountReports, Part
from service.ingest import MailboxStatus
from service.snapshot import take_page
from tests.servers.mailbus import words


class Many:
    """What a process knows of its accounts, and the pages that were asked for."""

    def __init__(self, mailboxes: dict[str, int]) -> None:
        self.reports = AccountReports(Subjects("mail"), _nowhere, writer="pod/1", clock=SystemClock())
        self.work: list[Work] = []
        self.asked: list[str] = []
        for account, count in mailboxes.items():
            parts = [Part(AccountPart.MAILBOX, f"box {number}") for number in range(count)]
            self.reports.add(account, parts)
            statuses = [MailboxStatus(part.mailbox) for part in parts]
            self.work.append(Work(account, parts[0], _never, parts, lambda statuses=statuses: statuses))
            for part in parts:
                self.reports.part(account, part, AccountState.CONNECTED)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[AdminServer]:
        empty = Snapshot(instance="i", version="v", uptime_s=0, nats_connected=True, ready=True)

        def page(after: str) -> Any:
            self.asked.append(after)
            return take_page(self.reports, self.work, {}, (), "i", after)

        async with AdminServer(("127.0.0.1", 0), snapshot=lambda: empty, accounts=page, ready=lambda: True) as server:
            yield server


async def _nowhere(_message: object) -> None:
    pass


async def _never() -> None:
    pass


@pytest.fixture
def accounts(tmp_path: Path) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    async def ask(port: int, *flags: str) -> tuple[int, str, str]:
        file = tmp_path / "mailbus.yaml"
        file.write_text(yaml.safe_dump({"http": {"listen": f"127.0.0.1:{port}"}}))
        return await words("accounts", *flags, "--config", str(file))

    return ask


async def test_all_accounts_are_shown_however_many_there_are(
    accounts: Callable[..., Awaitable[tuple[int, str, str]]],
) -> None:
    names = [f"a{number:05}" for number in range(2 * PAGE_LIMIT_ACCOUNTS + 3)]
    many = Many(dict.fromkeys(reversed(names), 1))
    in_trouble = names[PAGE_LIMIT_ACCOUNTS + 7]
    many.reports.part(in_trouble, Part(AccountPart.MAILBOX, "box 0"), AccountState.AUTH_FAILED, AuthRefused("no"))
    async with many.served() as server:
        code, out, err = await accounts(server.port, "--json")
        assert code == 0, err
        shown = json.loads(out)
        assert sorted(one["id"] for one in shown) == names
        assert many.asked == ["", names[PAGE_LIMIT_ACCOUNTS - 1], names[2 * PAGE_LIMIT_ACCOUNTS - 1]]
        # Trouble first, of its page.
        assert shown[PAGE_LIMIT_ACCOUNTS]["id"] == in_trouble
        code, out, _ = await accounts(server.port)
        assert code == 0
        assert all(name in out for name in names)


async def test_a_page_ends_early_where_accounts_have_many_mailboxes_and_holds_one_account_at_least(
    accounts: Callable[..., Awaitable[tuple[int, str, str]]],
) -> None:
    many = Many({"a": 10, "b": PAGE_LIMIT_MAILBOXES + 1, "c": PAGE_LIMIT_MAILBOXES - 10, "d": 10, "e": 1})
    async with many.served() as server:
        code, out, err = await accounts(server.port, "--json")
    assert code == 0, err
    assert [(one["id"], len(one["mailboxes"])) for one in json.loads(out)] == [
        ("a", 10),
        ("b", PAGE_LIMIT_MAILBOXES + 1),
        ("c", PAGE_LIMIT_MAILBOXES - 10),
        ("d", 10),
        ("e", 1),
    ]
    assert many.asked == ["", "a", "b", "d"]


async def test_no_account_is_an_empty_list(accounts: Callable[..., Awaitable[tuple[int, str, str]]]) -> None:
    async with Many({}).served() as server:
        code, out, _ = await accounts(server.port, "--json")
    assert (code, json.loads(out)) == (0, [])


async def test_the_help_says_that_all_are_shown_and_how() -> None:
    _, out, _ = await words("accounts", "--help")
    assert "Show all accounts" in out
    assert "500 at a time" in " ".join(out.split())


@pytest.mark.parametrize("body", [b"no json", b"{}", b'{"accounts": 7}', b"x" * (17 * 1024 * 1024)])
async def test_another_server_at_that_address_is_said_to_be_none_of_ours(
    accounts: Callable[..., Awaitable[tuple[int, str, str]]], body: bytes
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/accounts", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        code, _, err = await accounts(port)
    finally:
        await runner.cleanup()
    assert code == 1
    assert "is it running?" in err
    assert "Traceback" not in err


async def test_a_page_begins_after_any_text(tmp_path: Path) -> None:
    many = Many({"a": 1, "b": 1})
    async with many.served() as server, aiohttp.ClientSession() as client:
        for after in ("", "a", "\x00\r\n", "é", "a" * 3000):
            url = f"http://127.0.0.1:{server.port}/accounts"
            async with client.get(url, params={"after": after}) as answer:
                assert answer.status == 200
                page = await answer.json()
            assert [one["id"] for one in page["accounts"]] == [name for name in ("a", "b") if name > after]
            assert page["after"] is None
