"""Options → a connection, or the verdict why not. Real servers; a scripted greeting for an old one."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nkeys
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.errors import Permanent, Transient
from tests.bus.conftest import opened, until
from tests.servers.nats import NatsServer

SECRET = "hunter2-do-not-show"


async def _refused(options: NatsOptions, verdict: type[Exception]) -> str:
    with pytest.raises(verdict) as refused:
        async with open_bus(options, StreamOptions()):
            pass
    chain: list[str] = []
    error: BaseException | None = refused.value
    while error is not None:
        chain += [str(error), repr(error)]
        error = error.__cause__
    assert SECRET not in " ".join(chain)
    assert SECRET not in repr(options)
    return str(refused.value)


@pytest.fixture
async def scripted_greeting() -> AsyncIterator[Any]:
    """A maker of servers that greet with an INFO of our choice and then play a NATS without subjects."""
    servers: list[asyncio.Server] = []

    async def make(**info: Any) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            greeting = {"server_id": "x", "max_payload": 1048576, "headers": True, "proto": 1} | info
            writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield make
    for server in servers:
        server.close()


@pytest.mark.fault("D18")
async def test_a_nats_older_than_2_12_is_refused(scripted_greeting: Any) -> None:
    url = await scripted_greeting(version="2.11.9", jetstream=True)
    said = await _refused(NatsOptions(servers=(url,)), Permanent)
    assert "NATS 2.11.9 is too old: mailbus needs 2.12 or newer" in said
    assert "upgrade" in said


async def test_a_nats_without_jetstream_is_refused(scripted_greeting: Any) -> None:
    url = await scripted_greeting(version="2.12.0")
    assert "without JetStream" in await _refused(NatsOptions(servers=(url,)), Permanent)


async def test_no_server_is_transient(fault_proxy: Any) -> None:
    proxy = await fault_proxy("127.0.0.1", 1)
    await proxy.refuse()
    url = f"nats://{SECRET}:{SECRET}@127.0.0.1:{proxy.port}"
    said = await _refused(NatsOptions(servers=(url,)), Transient)
    assert f"Connection refused [127.0.0.1:{proxy.port}]: is the server up?" in said


async def test_a_host_that_is_not_to_be_found_is_said_in_words() -> None:
    said = await _refused(NatsOptions(servers=("nats://nowhere.invalid:4222",)), Transient)
    assert "no NATS: " in said
    assert "Error" not in said
    assert "gaierror" not in said
    assert "[nowhere.invalid:4222]" in said


async def test_a_silent_server_is_transient(
    nats_server: NatsServer, fault_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.connection.CONNECT_TIMEOUT_S", 0.3)
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    proxy.swallow()
    said = await _refused(NatsOptions(servers=(f"nats://127.0.0.1:{proxy.port}",)), Transient)
    assert "no answer in time" in said


def _nkey() -> tuple[str, str]:
    """(seed, public key)"""
    pair = nkeys.from_seed(nkeys.encode_seed(b"0123456789abcdef0123456789abcdef", nkeys.PREFIX_BYTE_USER))
    return pair.seed.decode(), pair.public_key.decode()


SEED, PUBLIC = _nkey()


@pytest.mark.parametrize(
    ("authorization", "right", "wrong"),
    [
        (
            {"user": "u", "password": SECRET},
            {"user": "u", "password": SECRET},
            {"user": "u", "password": SECRET + "x"},
        ),
        ({"token": SECRET}, {"token": SECRET}, {"token": SECRET + "x"}),
        (
            {"users": [{"nkey": PUBLIC}]},
            {"nkey_seed": SEED},
            {"user": "u", "password": SECRET},
        ),
    ],
    ids=["password", "token", "nkey"],
)
async def test_credentials(
    tmp_path: Path, authorization: dict[str, Any], right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    server = NatsServer(tmp_path / "nats", {"authorization": authorization})
    await server.start()
    try:
        async with opened(server.url, "mail", **right) as bus:
            assert bus.connected
            assert SECRET not in repr(bus.options)
            assert SEED not in repr(bus.options)
        said = await _refused(NatsOptions(servers=(server.url,), **wrong), Permanent)
        assert "refuses the credentials" in said
        assert "credentials" in await _refused(NatsOptions(servers=(server.url,)), Permanent)
    finally:
        await server.kill()


async def _slow_to_authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"headers":true,"proto":1}\r\n')
    await reader.readline()
    writer.write(b"-ERR 'Authentication Timeout'\r\n")
    writer.close()


async def test_a_server_that_is_slow_to_authenticate_is_waited_for_whatever_another_one_says(tmp_path: Path) -> None:
    strict = NatsServer(tmp_path / "nats", {"authorization": {"user": "u", "password": SECRET}})
    await strict.start()
    slow = await asyncio.start_server(_slow_to_authenticate, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
    try:
        assert "Authentication Timeout" in await _refused(NatsOptions(servers=(url,)), Transient)
        await _refused(NatsOptions(servers=(strict.url, url)), Transient)
    finally:
        slow.close()
        await strict.kill()


RENEWED = "hunter3-do-not-show"
OTHER = nkeys.from_seed(nkeys.encode_seed(b"fedcba9876543210fedcba9876543210", nkeys.PREFIX_BYTE_USER))


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    ("before", "after", "options", "old", "new"),
    [
        (
            {"user": "u", "password": SECRET},
            {"user": "u", "password": RENEWED},
            {"user": "u", "password": SECRET},
            SECRET,
            RENEWED,
        ),
        ({"token": SECRET}, {"token": RENEWED}, {"token": SECRET}, SECRET, RENEWED),
        (
            {"users": [{"nkey": PUBLIC}]},
            {"users": [{"nkey": OTHER.public_key.decode()}]},
            {"nkey_seed": SEED},
            SEED,
            OTHER.seed.decode(),
        ),
    ],
    ids=["password", "token", "nkey_seed"],
)
async def test_a_secret_that_is_changed_in_its_file_is_used_at_the_next_connect(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], options: dict[str, Any], old: str, new: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(old + "\n")
    (name,) = set(options) - {"user"}
    server = NatsServer(tmp_path / "nats", {"authorization": before})
    await server.start()
    try:
        async with opened(server.url, "mail", **options, files={name: file}) as bus:
            with capture_logs() as said:
                await server.kill()
                await until(lambda: not bus.connected)
                # While it is being written what was read before is kept.
                file.write_text("")
                await until(lambda: any(line["event"] == "nats_secret_not_read" for line in said))
                server.config["authorization"] = after
                await server.start()
                # Refused with the old one, and not for good.
                await until(lambda: any(line["event"] == "nats_refused" for line in said))
                assert not bus.connected
                file.write_text(new + "\n")
                await until(lambda: bus.connected)
            assert [line["event"] for line in said].count("nats_refused") == 1
            assert not [line for line in said if old in str(line) or new in str(line)]
    finally:
        await server.kill()


async def test_a_broken_seed_or_creds_file_is_permanent_and_not_shown(nats_server: NatsServer, tmp_path: Path) -> None:
    said = await _refused(NatsOptions(servers=(nats_server.url,), nkey_seed=SECRET), Permanent)
    assert "nkey_seed" in said
    missing = str(tmp_path / "no.creds")
    assert "creds" in await _refused(NatsOptions(servers=(nats_server.url,), creds=missing), Permanent)
    broken = tmp_path / "broken.creds"
    broken.write_text(f"-----BEGIN NATS USER JWT-----\n{SECRET}\n")
    assert "creds" in await _refused(NatsOptions(servers=(nats_server.url,), creds=str(broken)), Permanent)


async def test_a_missing_certificate_file_is_permanent_and_named(nats_server: NatsServer, tmp_path: Path) -> None:
    said = await _refused(NatsOptions(servers=(nats_server.url,), ca=str(tmp_path / "no.pem")), Permanent)
    assert "nats.tls" in said


async def test_nats_py_does_not_parse_headers_with_fast_mail_parser(nats_server: NatsServer, tmp_path: Path) -> None:
    """Where that library is installed, nats-py takes it for headers, and every value becomes a list."""
    (tmp_path / "fast_mail_parser.py").write_text("def parse_email(raw): raise SystemExit('nats-py uses it')\n")
    code = f"""
import asyncio, nats.aio.client
found = nats.aio.client.parse_email
from service.bus import NatsOptions, open_bus
async def main():
    async with open_bus(NatsOptions(servers=({nats_server.url!r},)), None) as bus:
        news = await bus.nc.subscribe("x")
        await bus.nc.publish("x", b"", headers={{"KV-Operation": "DEL"}})
        print(found is not None, (await news.next_msg(timeout=5)).headers)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().strip() == "True {'KV-Operation': 'DEL'}"


@pytest.mark.fault("G11")
async def test_headers_that_are_none_stop_nobody_else(bus: Bus) -> None:
    inbox = bus.nc.new_inbox()
    subscription = await bus.nc.subscribe(inbox)
    head = b"NATS/1.0 \xff\r\n\r\n"
    await bus.nc._send_command(b"HPUB %b %d %d\r\n%b\r\n" % (inbox.encode(), len(head), len(head), head))
    await bus.nc._flush_pending()
    assert (await subscription.next_msg(timeout=5)).headers is None
    await bus.nc.publish(inbox, b"next")
    assert (await subscription.next_msg(timeout=5)).data == b"next"


async def test_credentials_never_go_to_a_server_without_tls_where_tls_is_wanted() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"auth_required":true}\r\n')
        with suppress(ConnectionError):
            heard.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        options = NatsOptions(servers=(f"tls://127.0.0.1:{port}",), user="me", password="marker-Pa55")
        assert "no TLS" in await _refused(options, Permanent)
    assert b"marker-Pa55" not in heard
    assert b"CONNECT" not in heard


@pytest.mark.fault("D13")
async def test_the_connection_comes_back_and_says_so(own_nats: NatsServer, own_bus: Bus) -> None:
    seq = await own_bus.publish(own_bus.subjects.out("a"), b"1")
    await own_nats.kill()
    await until(lambda: not own_bus.connected)
    with pytest.raises(Transient):
        await own_bus.publish(own_bus.subjects.out("a"), b"lost")
    await own_nats.start()
    async with asyncio.timeout(20):
        await own_bus.wait_connected()
        while True:
            try:
                last = await own_bus.publish(own_bus.subjects.out("a"), b"2")
                break
            except Transient:
                continue
    assert last > seq


async def test_nats_py_has_the_private_names_that_we_override() -> None:
    names = "_process_err _process_op_err _process_headers _process_msg _send_command _connect_to_server"
    for name in names.split():
        assert asyncio.iscoroutinefunction(getattr(Client, name))
    assert callable(Client._connect_command)
    assert callable(Client._remove_sub)


async def test_nats_py_has_the_private_values_that_we_use(bus: Bus) -> None:
    assert isinstance(bus.nc._flush_queue, asyncio.Queue)
    assert isinstance((await bus.nc.subscribe("x"))._id, int)
    assert isinstance(bus.nc._pending, list)
    assert bus.nc._pending_data_size == bus.nc.pending_data_size
    assert bus.nc._max_pending_size > 0


@pytest.mark.fault("D12")
async def test_an_error_that_the_server_closes_for_does_not_end_the_client(bus: Bus) -> None:
    # What nats-py does by itself: close for ever, so that only a restart of the process helps.
    await bus.nc._send_command(b"PUB " + b"x" * 5_000 + b" 0\r\n\r\n")
    await bus.nc._flush_pending()
    await until(lambda: not bus.connected)
    await until(lambda: bus.connected)
    assert await bus.publish(bus.subjects.out("a"), b"1") == 1
