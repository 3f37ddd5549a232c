"""A creds file (JWT and seed) opens a bus on a server that knows its users by JWT only, and files of credentials may
fall silent. Real servers.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import nkeys
import pytest

from service.bus import NatsOptions, StreamOptions, open_bus
from service.errors import Permanent
from tests.bus.conftest import opened, until
from tests.servers.nats import NatsServer

TOKEN = "a-token"


def pair(prefix: int) -> Any:
    """A new key pair: operator, account or user."""
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def jwt(issuer: Any, subject: Any, kind: str, **nats: Any) -> str:
    """A NATS JWT: ed25519-nkey, claims of version 2."""
    claims = {
        "jti": base64.b32encode(os.urandom(16)).decode().strip("="),
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "name": kind,
        "sub": subject.public_key.decode(),
        "nats": {"type": kind, "version": 2} | nats,
    }

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    signed = f"{part(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(issuer.sign(signed.encode()))}"


def creds(token: str, user: Any) -> str:
    """As `nsc generate creds` writes it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )


@pytest.mark.fault("F10")
async def test_a_creds_file_opens_the_bus_and_a_strangers_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.aside.LIMIT_S", 0.5)
    operator, other = pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system, account, user = (
        pair(prefix) for prefix in (nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1}
    jetstream = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    preload = {
        system.public_key.decode(): jwt(operator, system, "account", limits=limits),
        account.public_key.decode(): jwt(operator, account, "account", limits=limits | jetstream),
    }
    config = {
        "operator": jwt(operator, operator, "operator"),
        "system_account": system.public_key.decode(),
        "resolver": "MEMORY",
        "resolver_preload": preload,
    }
    good, bad = tmp_path / "good.creds", tmp_path / "bad.creds"
    good.write_text(creds(jwt(account, user, "user", **unlimited), user))
    bad.write_text(creds(jwt(other, user, "user", **unlimited), user))
    server = NatsServer(tmp_path / "nats", config)
    await server.start()
    try:
        async with opened(server.url, "mail", creds=str(good)) as bus:
            assert await bus.publish(bus.subjects.out("a"), b"1") == 1
            # A file that says nothing later is what it was.
            good.unlink()
            os.mkfifo(good)
            await server.kill()
            await until(lambda: not bus.connected)
            await server.start()
            await until(lambda: bus.connected)
            good.write_text("")  # its reader ends
        with pytest.raises(Permanent, match="refuses the credentials"):
            async with open_bus(NatsOptions(servers=(server.url,), creds=str(bad)), StreamOptions()):
                pass
    finally:
        await server.kill()


@pytest.mark.fault("F10")
async def test_a_secret_whose_file_says_nothing_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.aside.LIMIT_S", 0.2)
    file = tmp_path / "secret"
    file.write_text(TOKEN)
    server = NatsServer(tmp_path / "nats", {"authorization": {"token": TOKEN}})
    await server.start()
    try:
        async with opened(server.url, "mail", token=TOKEN, files={"token": file}) as bus:
            file.unlink()
            os.mkfifo(file)
            await server.kill()
            await until(lambda: not bus.connected)
            await server.start()
            await until(lambda: bus.connected)
            file.write_text(TOKEN)  # its reader ends
    finally:
        await server.kill()
