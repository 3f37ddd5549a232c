"""What readers and requesters may do, as docs/operations.md writes it and `mailbus streams permissions` prints it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nats
import nats.errors
import pytest
import yaml
from nats.aio.client import Client

from service.app import MOVING_S
from service.bus import (
    Job,
    NatsOptions,
    StreamOptions,
    mailbus_permissions,
    open_bus,
    reader_permissions,
    requester_permissions,
    uploader_permissions,
)
from service.bus.errors import NotPermitted
from service.bus.permissions import Permissions
from service.commands.begun import COMMAND_LIMIT_S
from service.commands.serve import PASSED_ON_S
from service.contract import Subjects
from service.errors import EX_CONFIG
from service.outbound.suspects import Suspects, Suspicion
from service.settings.model import FleetSettings
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, command, imap_account, settings_for, with_relay, words
from tests.servers.nats_documented import DocumentedNats, documented_authorization
from tests.servers.smtp import ScriptedRelay

Maker = Callable[..., Mailbus]
MAIL = Subjects("mail")
# What each may not, and another may: asked by the one, nothing happens.
FORBIDDEN = {
    "crm": [
        "mail.in.support.INBOX.received",
        "mail.status.support.sent",
        "mail.out.support",
        "mail.cmd.support.search",
        "mail.admin.accounts.list",
        "mail.admin.forget",
        "$O.mail-blobs.M.x",
        "$KV.mail-cursors.x",
        "$JS.API.CONSUMER.CREATE.MAIL_IN.mine",
        "$JS.API.CONSUMER.MSG.NEXT.MAIL_IN.another",
        "$JS.API.STREAM.MSG.GET.MAIL_IN",
        "$JS.API.STREAM.MSG.GET.KV_mail-accounts",
        "$JS.API.STREAM.MSG.DELETE.MAIL_IN",
        "$JS.API.STREAM.PURGE.MAIL_IN",
        "$JS.API.STREAM.UPDATE.MAIL_IN",
        "$JS.API.STREAM.DELETE.MAIL_IN",
    ],
    "shop": [
        "mail.in.support.INBOX.received",
        "mail.out.billing",
        "mail.later.support.x",
        "mail.due.support",
        "mail.cmd.support.delete",
        "mail.cmd.billing.send",
        "mail.admin.accounts.list",
        "mail.cmd.billing.upload",
        "$KV.mail-sends.x",
        "$O.mail-blobs.M.x",
        "$O.mail-blobs.C.x",
        "$JS.API.STREAM.MSG.GET.OBJ_mail-blobs",
        "$JS.API.CONSUMER.CREATE.MAIL_OUT.mine",
        "$JS.API.STREAM.MSG.GET.MAIL_IN",
        "$JS.API.STREAM.MSG.GET.MAIL_OUT",
        "$JS.API.STREAM.PURGE.MAIL_OUT",
        "$JS.API.STREAM.PURGE.OBJ_mail-blobs",
    ],
    "uploader": [
        "mail.out.support",
        "mail.cmd.support.send",
        "$O.mail-state.M.x",
        "$O.mail-outbox.M.x",
        "$JS.API.STREAM.MSG.GET.OBJ_mail-outbox",
        "$JS.API.STREAM.PURGE.OBJ_mail-blobs",
    ],
    "mailbus": [
        # What others have in the same account of NATS.
        "$JS.API.STREAM.CREATE.ORDERS",
        "$JS.API.STREAM.INFO.ORDERS",
        "$JS.API.STREAM.MSG.GET.ORDERS",
        "$JS.API.STREAM.MSG.DELETE.MAIL_IN",
        "$JS.API.STREAM.PURGE.MAIL_IN",
        "$JS.API.STREAM.UPDATE.MAIL_IN",
        "$JS.API.STREAM.DELETE.MAIL_IN",
        "somebody.else",
    ],
}


def documented(user: str) -> Permissions:
    """A user's rights as the document has them."""
    text = documented_authorization()
    block = text[text.index(f"user: {user},") :]
    listed = [re.search(rf"{name}: \[(.*?)\]", block, re.DOTALL) for name in ("publish", "subscribe")]
    publish, subscribe = (tuple(re.findall(r'"([^"]+)"', found[1])) for found in listed if found)
    return Permissions(publish, subscribe)


@asynccontextmanager
async def logged_in(server: DocumentedNats, user: str) -> AsyncIterator[tuple[Client, list[str]]]:
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    inbox = b"_INBOX" if user == "mailbus" else f"_INBOX_{user}".encode()
    nc = await nats.connect(server.url, user=user, password="secret", inbox_prefix=inbox, error_cb=on_error)
    try:
        yield nc, refused
    finally:
        await nc.close()


@pytest.mark.parametrize(
    ("user", "made"),
    [
        ("mailbus", mailbus_permissions(MAIL)),
        ("crm", reader_permissions(MAIL, "crm")),
        ("shop", requester_permissions(MAIL, "shop", "support")),
        ("uploader", uploader_permissions(MAIL, "uploader")),
    ],
)
def test_what_is_printed_is_what_the_document_shows(user: str, made: Permissions) -> None:
    found = documented(user)
    assert sorted(made.publish) == sorted(found.publish)
    assert sorted(made.subscribe) == sorted(found.subscribe)


def test_an_answer_may_come_for_as_long_as_a_command_may_take() -> None:
    (written,) = re.findall(r"^ *(allow_responses: .*)$", documented_authorization(), re.MULTILINE)
    assert written in str(mailbus_permissions(MAIL))
    (minutes,) = re.findall(r'expires: "(\d+)m"', written)
    longest_ttl = FleetSettings.model_validate({"ttl": "5m"}).ttl
    assert int(minutes) * 60 > longest_ttl.total_seconds() + MOVING_S + COMMAND_LIMIT_S + PASSED_ON_S


@pytest.mark.fault("G08")
async def test_a_role_can_do_what_it_is_for_and_not_what_others_may(documented_nats: DocumentedNats) -> None:
    options = NatsOptions(servers=(documented_nats.url,), user="mailbus", password="secret")
    async with open_bus(options, StreamOptions()) as bus, logged_in(documented_nats, "admin") as (admin, _):
        await admin.jetstream().add_consumer("MAIL_IN", durable_name="crm", ack_policy="explicit")
        blob = await bus.blobs().put(b"a file", now=(await bus.log.bounds()).now)
        await bus.publish("mail.in.support.INBOX.received", b"{}")
        async with logged_in(documented_nats, "crm") as (crm, _):
            events = await crm.jetstream().pull_subscribe_bind("crm", stream="MAIL_IN")
            (event,) = await events.fetch(1, timeout=10)
            await event.ack_sync()
            assert await crm.jetstream().get_last_msg("OBJ_mail-blobs", "$O.mail-blobs.M.>")
        async with logged_in(documented_nats, "shop") as (shop, _):
            assert (await shop.jetstream().publish("mail.out.support", b"{}")).stream == "MAIL_OUT"
            # What a stream of schedules would obey wipes nothing here.
            for header in ({"Nats-Rollup": "all"}, {"Nats-Schedule": "@every 1s"}, {"Nats-TTL": "1s"}):
                reply = await shop.request("mail.out.support", b"{}", timeout=10, headers=header)
                assert "error" in json.loads(reply.data), header
            for verb in ("send", "upload"):  # nobody serves them here: it was allowed to ask
                with pytest.raises(nats.errors.NoRespondersError):
                    await shop.request(f"mail.cmd.support.{verb}", b"{}", timeout=10)
        async with logged_in(documented_nats, "uploader") as (uploader, _):
            store = await uploader.jetstream().object_store("mail-blobs")
            stored = await bus.blobs().put(b"another", now=(await bus.log.bounds()).now)
            await store.put(stored.replace(stored[:6], "202001"), b"another")
            assert await bus.blobs().get(stored.replace(stored[:6], "202001")) == b"another"
        assert await bus.pending("MAIL_OUT", "mail.out.support") == 1
        before = [await bus.stream_state(stream) for stream in ("MAIL_IN", "MAIL_OUT", "OBJ_mail-blobs")]
        for user, subjects in FORBIDDEN.items():
            async with logged_in(documented_nats, user) as (nc, refused):
                for subject in subjects:
                    # What would wipe an Object Store, where it is allowed.
                    wipe = {"Nats-Rollup": "all"} if subject.startswith("$O.") else None
                    await nc.publish(subject, b"{}", headers=wipe)
                # The server answers in order: what it thinks of all of them is known then.
                await nc.flush()
                async with asyncio.timeout(10):
                    while len(refused) < len(subjects):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                said = " ".join(refused).lower()
                assert [subject for subject in subjects if f'"{subject.lower()}"' not in said] == []
        assert [await bus.stream_state(stream) for stream in ("MAIL_IN", "MAIL_OUT", "OBJ_mail-blobs")] == before
        assert await bus.blobs().get(blob) == b"a file"


@pytest.mark.fault("G08")
async def test_mailbus_itself_is_permitted_all_that_it_does(
    documented_nats: DocumentedNats, dovecot: Dovecot, relay: ScriptedRelay, mailbus: Maker, prefix: str
) -> None:
    """Beside tests/servers/rights.py, which holds every test to them: here the server itself has them."""
    account = with_relay(imap_account(dovecot, prefix, id="support", after="seen"), relay)
    settings = settings_for(documented_nats.url, "mail", account)
    settings["nats"] |= {"user": "mailbus", "password": "secret"}
    processes = [mailbus(settings | {"instance": name}) for name in ("one", "two")]
    mail = {"to": [{"email": "a@x.example"}], "text": "x"}
    async with logged_in(documented_nats, "admin") as (admin, _):
        reader = BusReader(admin, "mail")
        for one in processes:
            one.start()
            await one.started()
        await dovecot.append(prefix, [b"Subject: x\r\n\r\nx\r\n"])
        (event,) = await reader.wait_received(1)
        await admin.jetstream().publish("mail.out.support", json.dumps(mail).encode())
        await relay.received(1)
        for verb, body in (
            ("send", mail),
            ("search", {"mailbox": "INBOX"}),
            ("get", {"ids": [event.body["id"]]}),
            ("held", {}),
        ):
            answer = await admin.request(f"mail.cmd.support.{verb}", json.dumps(body).encode(), timeout=20)
            assert "Nats-Service-Error-Code" not in (answer.headers or {}), answer.data
        await relay.received(2)
        for verb, request in (("pause", {"id": "support"}), ("resume", {"id": "support"}), ("list", {})):
            await reader.ask(f"accounts.{verb}", request)
        for words_given in (("check",), ("suppressions", "add", "support", "gone@x.example")):
            code, _, err = await command(processes[0], *words_given)
            assert code == 0, err
        code, out, err = await command(processes[0], "suppressions", "remove", "support", "gone@x.example")
        assert (code, out.strip()) == (0, "removed"), err
        # What ended a process, it may have back.
        options = NatsOptions(servers=(documented_nats.url,), user="mailbus", password="secret")
        async with open_bus(options, None) as bus:
            suspects = Suspects(bus.key_value(bus.subjects.sends), writer="x/1", lives=nobody)
            job = cast(Job, SimpleNamespace(subject="mail.out.support", seq=1))
            for _ in range(2):
                async with suspects.having(job, await suspects.look(job), None):
                    assert (await suspects.look(job)).revision
                assert await suspects.look(job) == Suspicion(0, 0)
    for one in processes:
        assert await one.stop() == 0
        assert not one.said("nats_not_permitted")


async def nobody(_writer: str) -> bool:
    return False


async def test_who_may_not_ask_is_told_so_and_at_once(documented_nats: DocumentedNats, tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    # mailbus's own user answers commands, and may ask for none; a reader may hear no answer on mailbus's inbox.
    for user, what in (("mailbus", "mail.cmd.support.search"), ("crm", "_inbox.")):
        nats = {"servers": [documented_nats.url], "user": user, "password": "secret"}
        file.write_text(yaml.safe_dump({"nats": nats}))
        code, _, err = await words("cmd", "support", "search", "-c", str(file))
        assert code == 1
        assert "NATS does not permit it" in err
        assert "nats_not_permitted" in err
        assert what in err


async def test_check_names_each_right_that_is_missing(documented_nats: DocumentedNats, tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    nats = {"servers": [documented_nats.url], "user": "shop", "password": "secret"}
    file.write_text(yaml.safe_dump({"nats": nats}))
    code, out, _ = await words("check", "-c", str(file))
    assert code == EX_CONFIG
    assert "publish mail.in.>" in out
    assert "publish mail.out.*" in out
    assert "subscribe mail.cmd.>" in out
    assert "mailbus streams permissions" in out


async def test_a_subject_that_is_not_permitted_is_said_once(
    documented_nats: DocumentedNats, capsys: pytest.CaptureFixture[str]
) -> None:
    options = NatsOptions(servers=(documented_nats.url,), user="mailbus", password="secret")
    async with open_bus(options, StreamOptions()) as bus, asyncio.timeout(20):
        for subject in ("somebody.else", "$JS.API.STREAM.PURGE.MAIL_IN", "somebody.else", "$KV.other.a", "$KV.other.b"):
            await bus.nc.publish(subject, b"")
        with pytest.raises(NotPermitted):
            await bus.request("last.one", b"", timeout_s=60)
    said = re.findall(r"nats_not_permitted .*?subject=(\S+)", capsys.readouterr().out)
    assert said == ["somebody.else", "$js.api.stream.purge.mail_in", "$kv.other.a", "last.one"]


async def test_the_command_line_prints_them_under_another_prefix(tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_text(yaml.safe_dump({"nats": {"prefix": "post"}}))
    code, out, err = await words("streams", "permissions", "requester", "--account", "box", "-c", str(file))
    assert code == 0, err
    assert '"post.out.box"' in out
    assert "mail." not in out.replace("post-", "")
