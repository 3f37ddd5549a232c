"""Accounts that are added, paused, changed and removed over the bus, while two processes run."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import nats.js.errors
import pytest
import yaml
from cryptography.fernet import Fernet

from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import Mailbus, command, imap_account, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

Maker = Callable[..., Mailbus]
# So many begin at once at one host.
MANY, ROUNDS = 40, 2


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


@pytest.mark.fault("G04")
async def test_an_account_is_added_paused_changed_and_removed_over_the_bus(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path
) -> None:
    user = f"{prefix}-b"
    seal = {"keys": [Fernet.generate_key().decode()]}
    processes = []
    for name in ("one", "two"):
        of_file = imap_account(dovecot, f"{prefix}-a", id="a")
        processes.append(mailbus(settings_for(own_nats.url, prefix, of_file, instance=name, seal=seal)))
        processes[-1].start()
    for process in processes:
        await process.started()
    file = tmp_path / "b.yaml"

    def written(**changes: Any) -> dict[str, Any]:
        return imap_account(dovecot, user, id="b") | changes

    async with reading(own_nats.url, prefix) as reader:

        async def ask(verb: str, request: dict[str, Any]) -> str:
            """What was answered: JSON, or the error."""
            payload = json.dumps(request).encode()
            answer = await reader.nc.request(f"{prefix}.admin.accounts.{verb}", payload, timeout=10)
            code = (answer.headers or {}).get("Nats-Service-Error-Code", "")
            return code + answer.data.decode()

        async def said(state: str, times: int = 1) -> None:
            async with asyncio.timeout(60):
                while [one.kind for one in await reader.events("STATUS")].count(state) < times:  # noqa: ASYNC110 a log
                    await asyncio.sleep(0.2)

        file.write_text(yaml.safe_dump(written(adress="typo")))
        code, _, err = await command(processes[0], "accounts", "add", str(file))
        assert (code, "adress: unknown key" in err) == (1, True)
        file.write_text(yaml.safe_dump(written()))
        code, out, err = await command(processes[0], "accounts", "add", str(file))
        assert (code, json.loads(out)) == (0, {"id": "b", "source": "bus", "paused": False}), err
        assert (await ask("add", written())).startswith("409")
        await dovecot.append(user, [mail(1)])
        await reader.wait_received(1)
        kept = await (await reader.nc.jetstream().key_value(f"{prefix}-accounts")).get("b")
        assert kept.value is not None
        assert imap_account(dovecot, user)["password"] not in kept.value.decode()
        # Paused: nothing is read, over restarts too, with another key before the old one; and its position is kept.
        await ask("pause", {"id": "b"})
        await said("paused")
        await dovecot.append(user, [mail(2)])
        seal["keys"].insert(0, Fernet.generate_key().decode())
        for process in processes:
            assert await process.stop() == 0
            process.start()
            await process.started()
        listed = {one["id"]: one for one in json.loads(await ask("list", {}))["list"]}
        assert (listed["b"]["paused"], listed["b"]["owner"], listed["b"]["source"]) == (True, None, "bus")
        assert (listed["a"]["paused"], listed["a"]["source"]) == (False, "file")
        answer = await reader.nc.request(f"{prefix}.cmd.b.mailboxes", b"{}", timeout=10)
        assert (answer.headers or {})["Nats-Service-Error-Code"] == "503"
        assert b"paused" in answer.data
        assert len(await reader.received()) == 1
        await ask("resume", {"id": "b"})
        await reader.wait_received(2)
        await said("resumed")
        # Sealed anew by the key that is first by now, and no account is begun anew for it: the old key may go.
        code, _, err = await command(processes[0], "accounts", "reseal")
        assert code == 0, err
        kept = await (await reader.nc.jetstream().key_value(f"{prefix}-accounts")).get("b")
        assert kept.value is not None
        hidden = json.loads(kept.value)["account"]["password"]["sealed"]
        assert Fernet(seal["keys"][0]).decrypt(hidden).decode() == imap_account(dovecot, user)["password"]
        # Changed: a password that is wrong.
        await ask("set", written(password="wrong"))
        await said("auth_failed")
        await ask("remove", {"id": "b"})
        await said("removed")
        assert (await ask("remove", {"id": "b"})).startswith("404")
        assert "settings file" in await ask("remove", {"id": "a"})
        assert "settings file" in await ask("set", written(id="a"))
        assert (await ask("pause", {"id": "b.*"})).startswith("400")
        # Removed while it was paused, it comes back paused, and whoever adds it is told so.
        file.write_text(yaml.safe_dump(written()))
        await ask("add", written())
        await ask("pause", {"id": "b"})
        await said("paused", 2)
        await ask("remove", {"id": "b"})
        await said("removed", 2)
        code, out, err = await command(processes[0], "accounts", "add", str(file))
        assert (code, json.loads(out)) == (0, {"id": "b", "source": "bus", "paused": True})
        assert "mailbus accounts resume b" in err
        await said("paused", 3)
        await ask("remove", {"id": "b"})
        assert [event.body["subject"] for event in await reader.received()] == ["mail 1", "mail 2"]
    for process in processes:
        assert await process.stop() == 0
        assert not process.said("account_not_taken")
    lines = [line for process in processes for line in process.said("account_state") if line["account"] == "b"]
    assert [line["state"] for line in lines].count("connected") == 1


async def test_an_account_moves_from_the_file_to_the_bus_and_back_and_is_not_begun_anew(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    user = f"{prefix}-a"
    written = imap_account(dovecot, user, id="a")
    settings = settings_for(own_nats.url, prefix, written, seal={"keys": [Fernet.generate_key().decode()]})
    one = mailbus(settings)
    one.start()
    await one.started()

    async with reading(own_nats.url, prefix) as reader:
        bucket = await reader.nc.jetstream().key_value(f"{prefix}-accounts")

        async def ask(verb: str, request: dict[str, Any]) -> dict[str, Any]:
            subject = f"{prefix}.admin.accounts.{verb}"
            answer = await reader.nc.request(subject, json.dumps(request).encode(), timeout=10)
            return {"code": (answer.headers or {}).get("Nats-Service-Error-Code", "")} | json.loads(answer.data)

        async def stands(**expected: Any) -> None:
            """What `list` says of it, soon."""
            async with asyncio.timeout(30):
                while expected.items() - (await ask("list", {}))["list"][0].items():  # noqa: ASYNC110 a request
                    await asyncio.sleep(0.05)

        # It is changed where it stands; who asks for more is told where that is.
        for verb, request in (("set", written), ("remove", {"id": "a"})):
            refused = await ask(verb, request)
            assert (refused["code"], "settings file" in refused["problems"][0]["message"]) == ("400", True)
        # There: paused as it was, and the file's counts while it stands in both.
        await ask("pause", {"id": "a"})
        await stands(paused=True)
        added = await ask("add", written)
        assert added == {"code": "", "id": "a", "source": "file", "paused": True}
        await ask("resume", {"id": "a"})
        await stands(paused=False, source="file")
        await dovecot.append(user, [mail(1)])
        await reader.wait_received(1)
        assert (await ask("set", written | {"address": "other@example.com"}))["source"] == "file"
        assert (await ask("set", written))["source"] == "file"
        one.write(yaml.safe_dump(settings | {"accounts": []}))
        await stands(source="bus")
        # And back, paused: it stays so.
        await ask("pause", {"id": "a"})
        one.write(yaml.safe_dump(settings))
        await stands(source="file", paused=True)
        assert (await ask("remove", {"id": "a"}))["code"] == ""
        await stands(source="file", paused=True)
        assert json.loads((await bucket.get("a")).value or b"") == {"paused": True}
        await ask("resume", {"id": "a"})
        await dovecot.append(user, [mail(2)])
        await reader.wait_received(2)
        # What cannot be read may go, whoever has the account.
        await bucket.put("a", b"no account")
        assert (await ask("remove", {"id": "a"}))["code"] == ""
        with pytest.raises(nats.js.errors.KeyNotFoundError):
            await bucket.get("a")
        assert not [event for event in await reader.events("STATUS") if event.kind == "removed"]
    assert [line for line in one.said("accounts_taken") if line["changed"] or line["removed"]] == []
    assert await one.stop() == 0


@pytest.mark.fault("F01")
async def test_a_request_that_waits_for_an_account_of_the_bus_outlives_a_restart(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    account = with_relay({"id": "b", "address": "b@example.com"}, relay)
    one = mailbus(settings_for(own_nats.url, prefix))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        async with asyncio.timeout(20):
            while True:
                with suppress(nats.errors.NoRespondersError):
                    await reader.nc.request(f"{prefix}.admin.accounts.add", json.dumps(account).encode(), timeout=10)
                    break
                await asyncio.sleep(0.02)
        assert await one.stop() == 0
        request = {"to": [{"email": "a@example.org"}], "text": "x"}
        await reader.nc.jetstream().publish(f"{prefix}.out.b", json.dumps(request).encode())
        one.start()
        await relay.received(1)
        assert await reader.count(f"{prefix}.dead.>", "DEAD") == 0
    assert await one.stop() == 0


@pytest.mark.fault("F09")
async def test_accounts_that_come_and_go_leave_no_connection_and_no_file_behind(
    own_nats: NatsServer, mailbus: Maker, prefix: str, imap_stub: ImapStub
) -> None:
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    seal = {"keys": [Fernet.generate_key().decode()]}
    one = mailbus(settings_for(own_nats.url, prefix, seal=seal))
    one.start()
    await one.started()
    assert one.process is not None
    open_files = Path(f"/proc/{one.process.pid}/fd")

    def count() -> int:
        return sum(1 for _ in open_files.iterdir())

    def states(state: str) -> int:
        return sum(line["state"] == state for line in one.said("account_state"))

    at_rest = count()
    async with reading(own_nats.url, prefix) as reader:
        for number in range(1, ROUNDS + 1):
            for id in range(MANY):
                account = {"id": f"a{id}", "address": "a@example.com", "password": "x", "incoming": {"imap": imap}}
                await reader.ask("accounts.add", account)
            await until(lambda: states("connected") == MANY * number)  # noqa: B023 it is awaited here
            assert count() >= MANY
            for id in range(MANY):
                await reader.ask("accounts.remove", {"id": f"a{id}"})
            await until(lambda: states("removed") == MANY * number)  # noqa: B023 as above
            # A few may be made once for all.
            await until(lambda: count() < at_rest + MANY // 4)
    assert await one.stop() == 0
