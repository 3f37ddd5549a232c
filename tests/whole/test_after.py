"""mailbus as a process, with a rule for what comes after: killed before it is carried out, which is not forgotten."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import yaml

from tests.after.harness import make, subjects, wait_subjects
from tests.ingest.view import act, mail, seen
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import CAPABILITIES, Connection, ImapStub
from tests.servers.mailbus import Mailbus, command, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.whole.test_commands import cmd

Maker = Callable[..., Mailbus]


@pytest.mark.fault("D16")
async def test_killed_before_its_time_a_mail_is_moved_by_the_next_start_and_told_once(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await asyncio.to_thread(make, dovecot, prefix, "Done")
    await dovecot.append(prefix, [mail(1)])
    account = imap_account(dovecot, prefix, initial="new", after={"move": "Done"}, after_delay="1h")
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await until(lambda: one.log_file.exists() and bool(one.said("epoch_begins")))
    await dovecot.append(prefix, [mail(2), mail(3)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(2)
        one.kill()
        # Another client meanwhile: one goes, one is flagged.
        await act(dovecot, prefix, ("STORE", "2", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        await act(dovecot, prefix, ("STORE", "3", "+FLAGS", r"(\Flagged)"))
        one.settings["accounts"][0]["incoming"]["after_delay"] = "10ms"
        one.start()
        await wait_subjects(dovecot, prefix, ["mail 3"], "Done")
        found = await seen(reader, {})
        assert sorted(told for told in found.told if told[0] != "changed") == [
            ("received", 2),
            ("received", 3),
            ("removed", 2),
            ("removed", 3),
        ]
        assert (await cmd(one, "resync", {}))["announced"] == 0
        states = [event.body["state"] for event in await reader.events("STATUS")]
    assert set(states) == {"connected"}
    assert await subjects(dovecot, prefix) == ["mail 1"]
    code, out, _ = await command(one, "check")
    assert code == 0, out
    assert "moves to Done" in out
    assert await one.stop() == 0


async def test_mail_of_another_user_with_the_same_numbers_is_left_alone(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    imap_stub.capabilities = f"{CAPABILITIES} UIDPLUS"
    imap_stub.messages = {1: mail(1)}
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    incoming = {"imap": imap, "initial": "new", "after": "delete", "after_delay": "1h"}
    account = {"id": "box", "address": "a@example.com", "username": "ada", "password": "x", "incoming": incoming}
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await until(lambda: one.log_file.exists() and bool(one.said("epoch_begins")))
    async with reading(own_nats.url, prefix) as reader:
        for uid in (2, 3, 4):
            await imap_stub.deliver(uid, mail(uid))
        await reader.wait_received(3)
    one.kill()
    imap_stub.messages = {uid: mail(10 + uid) for uid in (1, 2, 3, 4)}
    imap_stub.commands.clear()

    async def late(_connection: Connection, _tag: str, _arguments: str) -> bool:
        """The mailbox is found to be another only after what is to be deleted would be long gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while not any("SELECT" in line for line in imap_stub.commands):  # noqa: ASYNC110 a list rings no bell
                    await asyncio.sleep(0.02)
        return False

    imap_stub.hooks["EXAMINE"] = late
    account["username"] = "bob"
    incoming["after_delay"] = "10ms"
    one.start()
    await until(lambda: one.log_file.exists() and bool(one.said("epoch_begins")))
    assert one.said("epoch_begins")[0]["reason"] == "source"
    await imap_stub.deliver(5, mail(15))
    await until(lambda: any("UID EXPUNGE" in line for line in imap_stub.commands))
    async with reading(own_nats.url, prefix) as reader:
        assert len(await reader.received()) == 4
    changing = [line.partition(" UID ")[2] for line in imap_stub.commands if "STORE" in line or "EXPUNGE" in line]
    assert changing == [r"STORE 5 +FLAGS.SILENT (\Deleted)", "EXPUNGE 5"]
    assert await one.stop() == 0


async def test_who_deletes_from_a_log_with_one_replica_is_warned(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix, initial="new", after="delete")
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await until(lambda: one.log_file.exists() and bool(one.said("after_outlives_log")))
    assert one.said("after_outlives_log")[0]["stream"] == f"{prefix.upper()}_IN"
    assert await one.stop() == 0


async def test_a_mailbox_to_move_to_that_is_not_there_is_said_at_the_start(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix, initial="new", after={"move": "Nowhere"})
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await until(lambda: one.log_file.exists() and any("Nowhere" in line["error"] for line in one.said("account_state")))
    async with reading(own_nats.url, prefix) as reader:
        (event,) = [one.body for one in await reader.account_events("degraded") if one.kind == "degraded"]
    assert event["part"] == "after"
    assert event["detail"] == "there is no mailbox Nowhere to move mail to"
    assert "make it" in event["remedy"]
    code, out, _ = await command(one, "check")
    assert code == 1
    assert "there is no mailbox Nowhere to move mail to" in out
    one.settings["http"]["listen"] = f"127.0.0.1:{one.port}"
    (one.folder / "mailbus.yaml").write_text(yaml.safe_dump(one.settings))
    _, out, _ = await command(one, "accounts")
    assert "Nowhere" in out
    assert await one.stop() == 0
