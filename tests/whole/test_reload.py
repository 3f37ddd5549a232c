"""The settings file changes while mailbus runs: accounts come, change and go; what is wrong changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.fernet import Fernet

from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.scripted import serving
from tests.smtp.harness import server_context

Maker = Callable[..., Mailbus]


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


def connected(one: Mailbus, account: str) -> int:
    return sum(line["account"] == account and line["state"] == "connected" for line in one.said("account_state"))


@pytest.mark.fault("F10", "F11")
async def test_accounts_come_change_and_go_without_a_restart_and_what_is_wrong_changes_nothing(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path
) -> None:
    def account(id: str, **more: Any) -> dict[str, Any]:
        return imap_account(dovecot, f"{prefix}-{id}", id=id) | more

    secret = tmp_path / "password"
    settings = settings_for(own_nats.url, prefix, account("stays"))
    one = mailbus(settings)
    one.start()
    for id in ("stays", "comes"):
        await dovecot.append(f"{prefix}-{id}", [mail(1)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        # Comes, with a password that is nowhere yet, and then a wrong one.
        comes = account("comes", password={"file": str(secret)})
        one.write(yaml.safe_dump(settings | {"accounts": [account("stays"), comes]}))
        await until(lambda: bool(one.said("settings_not_taken")))
        secret.write_text("wrong")
        await until(lambda: any(line["state"] == "auth_failed" for line in one.said("account_state")))
        assert len(one.said("settings_not_taken")) == 1
        # The secret's file changes, and nothing else.
        secret.write_text(str(account("stays")["password"]))
        await reader.wait_received(2)
        # Wrong settings: all goes on as it was.
        one.write("accounts: [{id: stays, adress: typo}]")
        await until(lambda: len(one.said("settings_not_taken")) == 2)
        assert "adress" in json.dumps(one.said("settings_not_taken")[1]["problems"])
        for id in ("stays", "comes"):
            await dovecot.append(f"{prefix}-{id}", [mail(2)])
        await reader.wait_received(4)
        # Goes; and a section that needs a restart says so.
        one.write(yaml.safe_dump(settings | {"accounts": [account("stays")], "limits": {"inline": "1KiB"}}))
        await until(lambda: any(line["state"] == "removed" for line in one.said("account_state")))
        assert one.said("settings_need_restart")[-1]["sections"] == ["limits"]
        await dovecot.append(f"{prefix}-comes", [mail(3)])
        await dovecot.append(f"{prefix}-stays", [mail(3)])
        await reader.wait_received(5)
        # It is back, and goes on where it was.
        one.write(yaml.safe_dump(settings | {"accounts": [account("stays"), account("comes")]}))
        await reader.wait_received(6)
        assert connected(one, "stays") == 1
        found = [(event.subject.split(".")[2], event.body["subject"]) for event in await reader.received()]
        assert sorted(found) == sorted((id, f"mail {n}") for id in ("stays", "comes") for n in (1, 2, 3))
        removed = [event for event in await reader.events("STATUS") if event.kind == "removed"]
        assert [event.body["account"] for event in removed] == ["comes"]
    assert await one.stop() == 0


@pytest.mark.fault("F10")
@pytest.mark.parametrize("what", ["settings", "secret"])
async def test_what_changes_while_nats_is_waited_for_is_taken(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path, what: str
) -> None:
    await dovecot.append(f"{prefix}-a", [mail(1)])
    account = imap_account(dovecot, f"{prefix}-a", id="a")
    secret = tmp_path / "password"
    secret.write_text("wrong" if what == "secret" else str(account["password"]))
    account |= {"password": {"file": str(secret)}}
    settings = settings_for(own_nats.url, prefix, account)
    one = mailbus(settings | ({"accounts": []} if what == "settings" else {}))
    await own_nats.kill()
    one.start()
    await until(lambda: bool(one.said("nats_unavailable")))
    if what == "secret":
        secret.write_text(str(imap_account(dovecot, "")["password"]))
    else:
        one.write(yaml.safe_dump(settings))
    await own_nats.start()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
    assert await one.stop() == 0


@pytest.mark.fault("F10")
async def test_an_authority_that_changes_in_its_file_is_trusted_and_the_one_before_no_more(
    own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path
) -> None:
    old, other, new = trustme.CA(), trustme.CA(), trustme.CA()
    file, stub = tmp_path / "ca.pem", ImapStub()
    old.cert_pem.write_to_path(str(file))

    def account(id: str) -> dict[str, Any]:
        imap = {"host": "127.0.0.1", "port": stub.port, "ca": str(file)}
        return {"id": id, "address": "a@example.com", "password": "x", "incoming": {"imap": imap}}

    async def both_idle() -> None:
        await until(lambda: sum(bool(connection.idling) for connection in stub.connections) == 2)

    async with serving(stub, server_context(old)), reading(own_nats.url, prefix) as reader:
        seal = {"keys": [Fernet.generate_key().decode()]}
        one = mailbus(settings_for(own_nats.url, prefix, account("file"), seal=seal))
        one.start()
        await one.started()
        # The other one stands in NATS, and names the same file.
        await reader.ask("accounts.add", account("bus"))
        await both_idle()
        other.cert_pem.write_to_path(str(file))
        await until(lambda: {line["account"] for line in states(one, "degraded")} == {"file", "bus"})
    async with serving(stub, server_context(new)):
        new.cert_pem.write_to_path(str(file))
        await both_idle()
    assert await one.stop() == 0


def states(one: Mailbus, state: str) -> list[dict[str, Any]]:
    return [line for line in one.said("account_state") if line["state"] == state]
