"""What each address of the HTTP server answers, over a real port."""

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
import pytest

from service.admin import AccountSnapshot, MailboxSnapshot, Snapshot, Totals, Waiting
from service.admin.server import CLIENTS_LIMIT
from service.admin.snapshot import ACCOUNTS_LIMIT, ERROR_LIMIT, shown
from service.errors import Permanent
from service.observe import metrics
from tests.admin.conftest import Shown


async def frame(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next event of a stream."""
    while not (line := await answer.content.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return found


async def test_healthz_says_ok(admin: Shown, http: aiohttp.ClientSession) -> None:
    async with http.get(admin.url + "/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")


@pytest.mark.fault("F08")
async def test_not_ready_is_503_and_alive(admin: Shown, http: aiohttp.ClientSession) -> None:
    async with http.get(admin.url + "/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ready\n")
    admin.ready = False
    async with http.get(admin.url + "/readyz") as answer:
        assert answer.status == 503
        assert "NATS" in await answer.text()
    async with http.get(admin.url + "/healthz") as answer:
        assert answer.status == 200


@pytest.mark.fault("F08")
async def test_a_blocked_loop_is_not_alive(admin: Shown) -> None:
    outcome: list[str] = []

    def probe() -> None:
        try:
            urllib.request.urlopen(admin.url + "/healthz", timeout=0.5)
            outcome.append("alive")
        except (TimeoutError, urllib.error.URLError):
            outcome.append("silent")

    prober = threading.Thread(target=probe)
    prober.start()
    while prober.is_alive():
        time.sleep(0.01)  # noqa: ASYNC251 the loop is blocked on purpose
    assert outcome == ["silent"]
    await asyncio.to_thread(probe)
    assert outcome == ["silent", "alive"]


async def test_metrics_are_prometheus_text(admin: Shown, http: aiohttp.ClientSession) -> None:
    metrics.EVENTS.labels(type="received").inc(0)
    async with http.get(admin.url + "/metrics") as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'mailbus_events_total{type="received"}' in text
    for name in ("mailbus_ingest_seconds_bucket", "mailbus_fence_refused_total", "mailbus_bugs_total"):
        assert name in text


async def test_the_page_may_load_and_run_nothing_but_itself(admin: Shown, http: aiohttp.ClientSession) -> None:
    async with http.get(admin.url + "/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    addresses = page.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")
    assert "http://" not in addresses
    assert "https://" not in addresses
    assert "innerHTML" not in page


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/../etc/passwd", "/%00"])
async def test_an_unknown_address_is_a_plain_404(admin: Shown, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(admin.url + path) as answer:
        assert (answer.status, answer.content_type) == (404, "text/plain")
        assert await answer.text() == "Not Found\n"


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/events"])
async def test_nothing_can_be_changed(admin: Shown, http: aiohttp.ClientSession, path: str) -> None:
    async with http.post(admin.url + path, data=b"x") as answer:
        assert (answer.status, answer.content_type) == (405, "text/plain")
        assert "GET" in answer.headers["Allow"]


async def test_events_are_snapshots_one_after_the_other(admin: Shown, http: aiohttp.ClientSession) -> None:
    admin.change(
        accounts=(AccountSnapshot(id="a", state="connected", mailboxes=(MailboxSnapshot(name="INBOX", state="ok"),)),),
        waiting=(Waiting("commit", 2),),
        totals=Totals(events=7, recipients={"sent": 1}),
    )
    async with http.get(admin.url + "/events") as answer:
        assert answer.content_type == "text/event-stream"
        first = await frame(answer)
        admin.change(totals=Totals(events=9))
        second = await frame(answer)
    assert first["snapshot"]["instance"] == "one"
    assert first["snapshot"]["accounts"][0]["mailboxes"][0]["name"] == "INBOX"
    assert first["snapshot"]["waiting"] == [{"where": "commit", "count": 2}]
    assert first["states"] == {"connected": 1}
    assert (first["snapshot"]["totals"]["events"], second["snapshot"]["totals"]["events"]) == (7, 9)


async def test_the_number_of_readers_is_bounded_and_a_place_comes_free(
    admin: Shown, http: aiohttp.ClientSession
) -> None:
    readers = [await http.get(admin.url + "/events") for _ in range(CLIENTS_LIMIT)]
    async with http.get(admin.url + "/events") as answer:
        assert answer.status == 503
    readers[0].close()
    async with asyncio.timeout(10):
        while True:
            async with http.get(admin.url + "/events") as answer:
                if answer.status == 200:
                    break
    for reader in readers:
        reader.close()


async def test_streams_end_at_once_when_the_process_stops(http: aiohttp.ClientSession) -> None:
    given = Shown()
    async with given.server() as server:
        answer = await http.get(f"http://127.0.0.1:{server.port}/events")
        await frame(answer)
        stopped = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped < 0.9
    async with asyncio.timeout(5):
        while await answer.content.readline():
            pass


async def test_a_taken_port_names_the_setting_and_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Shown().server(taken.getsockname()[1])
        with pytest.raises(Permanent) as failed:
            await server.__aenter__()
    assert failed.value.where == "http.listen"
    assert "choose another port" in failed.value.remedy


async def test_an_address_of_another_machine_names_the_setting() -> None:
    server = Shown().server(host="192.0.2.1")
    with pytest.raises(Permanent, match=r"http\.listen") as failed:
        await server.__aenter__()
    assert "address of this machine" in failed.value.remedy


async def test_ipv6_is_listened_on(http: aiohttp.ClientSession) -> None:
    server = Shown().server(host="::1")
    async with server, http.get(f"http://[::1]:{server.port}/healthz") as answer:
        assert answer.status == 200


def test_trouble_comes_first_and_the_rest_is_counted() -> None:
    many = tuple(
        AccountSnapshot(
            id=f"a{n:05}", state="connected", mailboxes=(MailboxSnapshot(name="INBOX", state="watching", behind=1),)
        )
        for n in range(ACCOUNTS_LIMIT + 10)
    )
    bad = AccountSnapshot(id="z", state="auth_failed", last_error="x" * 10_000)
    empty = Snapshot(instance="i", version="v", uptime_s=0, nats_connected=True, ready=True)
    page = shown(msgspec.structs.replace(empty, accounts=(*many, bad)))
    assert [account.id for account in page.snapshot.accounts[:2]] == ["z", "a00000"]
    assert len(page.snapshot.accounts[0].last_error) == ERROR_LIMIT
    assert page.hidden == 11
    assert page.behind == ACCOUNTS_LIMIT + 10
    assert page.states == {"connected": ACCOUNTS_LIMIT + 10, "auth_failed": 1}


@pytest.mark.fault("G12")
def test_of_a_thousand_mailboxes_the_page_shows_those_in_trouble_and_counts_the_others() -> None:
    many = [MailboxSnapshot(name=f"m{n}", state="resting", announced=1, behind=n % 2) for n in range(1000)]
    bad = MailboxSnapshot(name="bad", state="degraded")
    account = AccountSnapshot(id="a", state="degraded", mailboxes=(*many, bad))
    empty = Snapshot(instance="i", version="v", uptime_s=0, nats_connected=True, ready=True)
    page = shown(msgspec.structs.replace(empty, accounts=(account,)))
    rows = page.snapshot.accounts[0].mailboxes
    assert (rows[0].name, rows[-1].name, len(rows)) == ("bad", "952 others", 50)
    assert sum(row.announced for row in rows) == 1000
    assert sum(row.behind for row in rows) == page.behind == 500


@pytest.mark.fault("G12")
async def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.server.FIRST_REQUEST_S", 0.2)
    shown = Shown()
    async with shown.server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTT")
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.fault("G12")
async def test_connections_too_many_are_closed_and_places_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.server.CONNECTIONS_LIMIT", 3)
    shown = Shown()
    async with shown.server() as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        for _, one in held:
            one.close()
            await one.wait_closed()
        async with asyncio.timeout(10), aiohttp.ClientSession() as client:
            while True:
                with suppress(aiohttp.ClientError):
                    async with client.get(f"http://127.0.0.1:{server.port}/healthz") as answer:
                        assert answer.status == 200
                        break
