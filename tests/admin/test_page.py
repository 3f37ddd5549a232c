"""The status page as a person sees it, in a real browser."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.admin import AccountSnapshot, MailboxSnapshot, Totals, Waiting
from tests.admin.conftest import Shown
from tests.servers.chromium import Page, chromium

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    async with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
async def page(browser: Page, admin: Shown) -> AsyncIterator[Page]:
    browser.requests.clear()
    browser.complaints.clear()
    await browser.look()
    await browser.go(admin.url)
    yield browser
    await browser.go("about:blank")
    await browser.until("location.href === 'about:blank'")


def account(id: str, state: str = "connected", **more: Any) -> AccountSnapshot:
    return AccountSnapshot(id=id, state=state, since=datetime.now(UTC) - timedelta(minutes=3), **more)


async def test_accounts_and_their_states_are_shown_and_nothing_is_asked_of_others(page: Page, admin: Shown) -> None:
    inbox = MailboxSnapshot(
        name="INBOX", state="watching", last_uid=4711, behind=3, announced=42, last_event_at=datetime.now(UTC)
    )
    admin.change(
        accounts=(
            account("fine", mailboxes=(inbox,)),
            account("refused", "auth_failed", last_error="the server refused LOGIN"),
            account("away", "disconnected"),
        ),
        waiting=(Waiting("retry", 2),),
        totals=Totals(events=1234, recipients={"sent": 5}),
    )
    await page.until("document.querySelectorAll('#accounts > li').length === 3")
    shown = await page.ask("document.body.innerText")
    for text in (
        "mailbus",
        "one · 1.2.3",
        "fine",
        "Connected",
        "refused",
        "Sign-in refused",
        "the server refused LOGIN",
    ):
        assert text in shown
    for text in ("away", "Retrying", "1,234 since the start", "5 sent", "2 retry", "NATS connected", "Ready"):
        assert text in shown
    assert await page.ask("document.querySelector('#accounts .name').textContent") == "refused"
    assert page.requests == [admin.url + "/", admin.url + "/events"]
    assert page.complaints == []


async def test_an_account_opens_by_keyboard_and_shows_its_mailboxes(page: Page, admin: Shown) -> None:
    admin.change(accounts=(account("a", mailboxes=(MailboxSnapshot(name="Entwürfe/Alt", state="syncing"),)),))
    await page.until("document.querySelectorAll('#accounts > li').length === 1")
    await page.ask("document.querySelector('summary').focus()")
    for kind in ("keyDown", "keyUp"):
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        await page.call("Input.dispatchKeyEvent", type=kind, **enter)
    await page.until("document.querySelector('#accounts').innerText.includes('Entwürfe/Alt')")
    # The next snapshot leaves it open, and the keyboard where it is.
    admin.change(totals=Totals(events=99))
    await page.until("document.body.innerText.includes('99 since the start')")
    assert await page.ask("document.querySelector('details').open")
    assert await page.ask("document.activeElement.tagName") == "SUMMARY"


async def test_markup_in_an_error_or_a_name_is_shown_as_text(page: Page, admin: Shown) -> None:
    admin.change(
        instance=SCRIPT,
        accounts=(
            account("a", "degraded", last_error=SCRIPT, mailboxes=(MailboxSnapshot(name=SCRIPT, state=SCRIPT),)),
        ),
    )
    await page.until("document.querySelectorAll('#accounts > li').length === 1")
    await page.ask("document.querySelector('summary').click()")
    await page.until(f"document.querySelector('td')?.textContent === {SCRIPT!r}")
    assert await page.ask("document.querySelector('.error').textContent") == SCRIPT
    assert await page.ask("document.querySelectorAll('main script, img').length") == 0
    assert page.complaints == []


async def test_no_accounts_says_what_to_do(page: Page) -> None:
    await page.until("!document.querySelector('#empty').hidden")
    shown = await page.ask("document.body.innerText")
    assert "No accounts configured" in shown
    assert "accounts:" in shown


async def test_before_nats_is_there_nobody_says_that_there_are_no_accounts(page: Page, admin: Shown) -> None:
    admin.change(ready=False, nats_connected=False)
    await page.until("document.body.innerText.includes('Waiting for NATS.')")
    assert "No accounts configured" not in await page.ask("document.body.innerText")


async def test_rates_are_made_of_successive_totals(page: Page, admin: Shown) -> None:
    for step in range(4):
        admin.change(uptime_s=5.0 + step, totals=Totals(events=1000 + 20 * step))
        await page.until(f"document.querySelector('#events-total').textContent.startsWith('{1000 + 20 * step:,} ')")
    await page.until("document.querySelector('#events').textContent.startsWith('20')")
    # Began again: what was before says nothing.
    admin.change(uptime_s=0.5, totals=Totals(events=0))
    await page.until("document.querySelector('#events').textContent.startsWith('0 ')")


async def test_not_ready_and_bugs_are_said(page: Page, admin: Shown) -> None:
    admin.change(ready=False, nats_connected=False, totals=Totals(bugs=2))
    await page.until("document.body.innerText.includes('NATS is away')")
    shown = await page.ask("document.body.innerText")
    assert "Not ready" in shown
    assert "2 bugs counted" in shown


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone(page: Page, admin: Shown, dark: bool) -> None:
    long = "x" * 64
    admin.change(accounts=(account(long, "degraded", last_error="y" * 300), account("b")))
    await page.look(width=360, dark=dark)
    await page.until("document.querySelectorAll('#accounts > li').length === 2")
    assert await page.ask("document.documentElement.scrollWidth") <= 360
    ground = await page.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 23)" if dark else "rgb(246, 246, 243)")


async def test_a_lost_connection_is_said_and_comes_back(browser: Page) -> None:
    given = Shown()
    async with given.server() as server:
        port = server.port
        await browser.go(f"http://127.0.0.1:{port}/")
        await browser.until("document.body.innerText.includes('Ready')")
    await browser.until("document.querySelector('#banner').textContent.includes('retrying')")
    assert not await browser.ask("document.querySelector('#banner').hidden")
    async with given.server(port):
        await browser.until("document.querySelector('#banner').hidden", limit_s=30)
        await browser.go("about:blank")


async def test_many_accounts_can_be_filtered(page: Page, admin: Shown) -> None:
    admin.change(accounts=tuple(account(f"shop-{n}") for n in range(20)))
    await page.until("document.querySelectorAll('#accounts > li').length === 20")
    await page.ask("filter = document.querySelector('#filter'); filter.value = 'SHOP-7'; true")
    await page.ask("document.querySelector('#filter').dispatchEvent(new Event('input'))")
    assert await page.ask("document.querySelectorAll('#accounts > li:not([hidden])').length") == 1


async def test_a_missing_chromium_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="apt-get install -y chromium"):
        async with chromium(tmp_path):
            pass
