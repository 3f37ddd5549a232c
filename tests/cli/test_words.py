"""The command line as its users type it: words, answers, exit codes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service import __version__
from service.bus import Followed
from service.cli.app import app
from service.cli.tail import as_line
from service.clock import SystemClock
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import ROOT, Mailbus, command, imap_account, reading, settings_for, with_relay, words
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay
from tests.whole.test_life import Maker, mail

WORDS = ["run", "check", "tail", "send", "accounts", "cmd", "schema", "demo"]
INNER = ["held list", "held release", "held cancel", "dead list", "dead show", "dead retry"]
INNER += ["suppressions list", "suppressions add", "suppressions remove"]


@asynccontextmanager
async def tailing(one: Mailbus, *given: str) -> AsyncIterator[asyncio.StreamReader]:
    """`mailbus tail …`, which ends with the block."""
    file = str(one.folder / "mailbus.yaml")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "tail", *given, "-c", file, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


@pytest.mark.parametrize("word", [*WORDS, *INNER])
async def test_every_word_has_help_with_an_example(word: str) -> None:
    code, out, _ = await words(*word.split(), "--help")
    assert code == 0
    assert f"mailbus {word}" in " ".join(out.split())
    assert "Example" in out


async def test_the_program_has_help_with_an_example() -> None:
    code, out, _ = await words("--help")
    assert code == 0
    assert "Example: mailbus demo --once" in " ".join(out.split())


def test_a_word_that_does_nothing_waits_for_nothing_that_the_others_work_with() -> None:
    code = "import sys, service.cli; print(*(name for name in sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    )
    assert "service.cli.app" in loaded
    assert loaded.isdisjoint({"service.app", "service.settings", "service.bus", "nats", "aiohttp", "pydantic", "rich"})


def test_every_group_of_words_has_an_example() -> None:
    groups = [
        one.typer_instance.info.help for one in app.registered_groups if one.name != "accounts" and one.typer_instance
    ]
    assert groups
    assert all(isinstance(help, str) and "Example:  mailbus " in help for help in groups)


async def test_the_version_is_the_packages() -> None:
    assert await words("--version") == (0, f"mailbus {__version__}\n", "")


@pytest.mark.parametrize(
    "given",
    [
        ["nonsense"],
        ["send"],
        ["run", "--nonsense"],
        ["schema", "nothing"],
        ["cmd", "a.>", "search"],
        ["tail", "--account", "x.y"],
        ["send", "a", "--to", "b@c.example", "--wait", "-5"],
        ["send", "a", "--to", "b@c.example", "--request", "-"],
        ["demo", "--listen", "nonsense"],
        ["demo", "--once", "--listen", "127.0.0.1:70000"],
    ],
)
async def test_a_usage_error_ends_with_2(given: list[str]) -> None:
    code, _, err = await words(*given)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.fault("F11")
@pytest.mark.parametrize("word", ["run", "check", "tail", "accounts"])
async def test_wrong_settings_end_with_78_and_all_errors(word: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("nats: {server: x}\naccounts: [{id: 'a b', address: nobody}]\n")
    code, _, err = await words(word, "--config", str(file))
    assert code == 78
    assert "nats.server" in err
    assert "accounts[0].id" in err
    assert "accounts[0].address" in err


@pytest.mark.parametrize("document", ["settings", "events", "asyncapi"])
async def test_schema_prints_a_document(document: str) -> None:
    code, out, _ = await words("schema", document)
    assert code == 0
    assert isinstance(json.loads(out), dict)


async def test_without_nats_a_command_says_so_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_text("nats: {servers: ['nats://127.0.0.1:1']}\n")
    code, out, err = await words("tail", "--config", str(file))
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert "127.0.0.1:1" in err


async def test_tail_shows_what_stands_on_the_bus(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    await dovecot.append(prefix, [mail(1)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
    async with tailing(one, "--all", "--json") as lines:
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while not any(event["headers"]["ce-type"] == "mailbus.received" for event in found):
                found.append(json.loads(await lines.readline()))
        assert found[-1]["body"]["subject"] == "mail 1"
        assert found[-1]["subject"] == f"{prefix}.in.box.INBOX.received"
    async with tailing(one, "--all") as lines:
        shown = b""
        async with asyncio.timeout(30):
            while b"mail 1" not in shown:
                shown += await lines.readline()
        assert b"reset" in shown
    assert await one.stop() == 0


@pytest.mark.parametrize("as_json", [True, False])
async def test_whoever_reads_no_further_hears_no_complaint(
    own_nats: NatsServer, mailbus: Maker, prefix: str, as_json: bool
) -> None:
    """`mailbus tail --all --json | head -1`."""
    one = mailbus(settings_for(own_nats.url, prefix))
    one.start()
    await one.started()
    mine, its = os.pipe()
    given = ["tail", "--all", *(["--json"] if as_json else []), "-c", str(one.folder / "mailbus.yaml")]
    tail = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *given, cwd=ROOT, stdout=its, stderr=asyncio.subprocess.PIPE
    )
    os.close(its)
    async with reading(own_nats.url, prefix) as reader:
        streams = reader.nc.jetstream()
        await streams.publish(f"{prefix}.status.box.sent", b"{}")
        assert b"sent" in await asyncio.to_thread(os.read, mine, 10_000)
        os.close(mine)
        async with asyncio.timeout(30):
            # The first that is refused ends it.
            while tail.returncode is None:
                await streams.publish(f"{prefix}.status.box.sent", b"{}")
    assert tail.stderr is not None
    assert (await tail.stderr.read(), tail.returncode) == (b"", 0)
    assert await one.stop() == 0


def test_a_tailed_line_shows_no_control_characters_of_strangers() -> None:
    body = json.dumps({"from": [{"email": "a@x"}], "subject": "\x1b[2Jgone"}).encode()
    headers = {"ce-type": "mailbus.received"}
    line = as_line(Followed(1, "mail.in.a.INBOX.received", headers, body, SystemClock().now()))
    assert "\x1b" not in line.plain
    assert "gone" in line.plain


async def test_send_waits_for_every_recipient_and_fails_where_one_does(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"no@x.org": ["550 5.1.1 nobody"]}
    one = mailbus(settings_for(own_nats.url, prefix, with_relay({"id": "box", "address": "me@example.com"}, relay)))
    one.start()
    await one.started()
    code, out, err = await command(one, "send", "box", "--to", "yes@x.org", "--to", "no@x.org", "--text", "hello")
    assert code == 1, err
    states = {json.loads(line)["state"] for line in out.splitlines()}
    assert states == {"sent", "failed"}
    code, out, err = await command(
        one, "send", "box", "--request", "-", stdin='{"id": "r1", "to": [{"email": "yes@x.org"}], "text": "x"}'
    )
    assert code == 0, err
    assert json.loads(out)["id"] == "r1"
    assert await one.stop() == 0


async def test_send_under_an_id_that_was_there_before_counts_what_became_of_it_then(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    """Also of whom an earlier attempt was the last, whose status is not said again."""
    relay.script.rcpt = {"no@x.org": ["550 5.1.1 nobody"], "late@x.org": ["451 4.7.1 later", "250 OK"] * 2}
    account = with_relay({"id": "box", "address": "me@example.com"}, relay, retry={"first": "1s"})
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    for id, who, right in (("r1", "no@x.org", 1), ("r2", "yes@x.org", 0)):
        for again in (False, True):
            to = ["--to", who, "--to", "late@x.org", "--text", "x", "--id", id]
            code, out, err = await command(one, "send", "box", *to)
            assert code == right, err
            states = [json.loads(line)["state"] for line in out.splitlines()]
            assert states == ["sent"] if again else states[-1] == "sent"
        assert (who in err) == bool(right)
    assert await one.stop() == 0


async def test_accounts_shows_state_and_progress(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    settings = settings_for(own_nats.url, prefix, imap_account(dovecot, prefix))
    one = mailbus(settings)
    one.start()
    await one.started()
    await dovecot.append(prefix, [mail(1), mail(2)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(2)
    (one.folder / "mailbus.yaml").write_text(
        (one.folder / "mailbus.yaml").read_text().replace("127.0.0.1:0", f"127.0.0.1:{one.port}")
    )

    shown: list[dict[str, Any]] = []
    for _ in range(50):
        code, out, err = await command(one, "accounts", "--json")
        assert code == 0, err
        shown = json.loads(out)
        if shown[0]["state"] == "connected" and shown[0]["mailboxes"][0]["announced"] == 2:
            break
    assert [(account["id"], account["state"]) for account in shown] == [("box", "connected")]
    assert shown[0]["mailboxes"][0]["announced"] == 2
    code, out, _ = await command(one, "accounts")
    assert code == 0
    assert "INBOX" in out
    assert await one.stop() == 0
    code, _, err = await command(one, "accounts")
    assert code == 1
    assert "is it running?" in err


async def test_send_to_nobody_says_so_in_one_line(own_nats: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_text(f"nats: {{servers: ['{own_nats.url}']}}\n")
    code, out, err = await words("send", "box", "--to", "a@example.org", "--text", "x", "--config", str(file))
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert "mailbus run" in err
    assert len(err.strip().splitlines()) == 1


async def test_what_is_larger_than_nats_takes_is_said_with_the_way_round(own_nats: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_text(f"nats: {{servers: ['{own_nats.url}']}}\n")
    request = tmp_path / "large.json"
    request.write_text("x" * 2_000_000)
    code, _, err = await words("send", "box", "--request", str(request), "--config", str(file))
    assert code == 1
    assert "upload" in err


async def test_a_dead_letter_that_is_not_there_is_no_wrong_setting(
    mailbus: Maker, own_nats: NatsServer, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix))
    one.start()
    await one.started()
    code, _, err = await command(one, "dead", "show", "9999")
    assert (code, await one.stop()) == (1, 0)
    assert "no dead letter 9999" in err


@pytest.mark.fault("D18")
async def test_check_and_run_end_with_78_where_a_stream_has_drifted_and_say_what_mends_it(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    account = with_relay({"id": "box", "address": "me@example.com"}, relay)
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    assert (await command(one, "check"))[0] == 0
    assert await one.stop() == 0
    async with reading(own_nats.url, prefix) as reader:
        streams = reader.nc.jetstream()
        config = (await streams.stream_info(f"{prefix.upper()}_STATUS")).config
        config.max_age = 3600
        await streams.update_stream(config)
    mends = f"nats stream edit {prefix.upper()}_STATUS --max-age="
    code, out, _ = await command(one, "check")
    assert code == 78
    assert mends in out
    one.start()
    assert await one.ended() == 78
    assert mends in one.log_file.read_text()


async def test_discover_says_what_is_no_address_and_asks_nobody() -> None:
    code, _, err = await words("accounts", "discover", "nobody")
    assert code == 1
    assert "nobody is no mail address" in err
    code, out, _ = await words("accounts", "discover", "--help")
    assert code == 0
    assert "mailbus accounts discover" in " ".join(out.split())
