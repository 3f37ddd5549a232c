"""The programs that README.md and docs/contract.md show do what is said of them, as they stand there."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from tests.examples.test_consumers import mail
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Mailbus, imap_account, reading, settings_for, with_relay
from tests.servers.nats import NatsServer
from tests.servers.nats_documented import DocumentedNats
from tests.servers.smtp import ScriptedRelay

ROOT = Path(__file__).parents[2]
Maker = Callable[..., Mailbus]
# Here fast-mail-parser is installed, beside which the contract says that nats-py is not to be used.
WITHOUT_PARSER = (
    "import runpy, sys, nats.aio.client as client; client.parse_email = None; "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)


def shown(document: str, word: str) -> str:
    """The one program of a document that has this word in it."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (program,) = (block for block in blocks if word in block and "asyncio.run(main())" in block)
    return str(program)


@asynccontextmanager
async def running(program: str, folder: Path, **environment: str) -> AsyncIterator[asyncio.StreamReader]:
    """What it prints, until the block ends."""
    (folder / "program.py").write_text(program)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", WITHOUT_PARSER, "program.py"),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def says(output: asyncio.StreamReader, words: str) -> str:
    """The line that holds the words, once it is printed."""
    async with asyncio.timeout(30):
        while line := (await output.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"ended without {words!r}")


async def test_the_readme_s_consumer_prints_each_mail(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path
) -> None:
    one = mailbus(settings_for(own_nats.url, "mail", imap_account(dovecot, prefix, id="support")))
    one.start()
    await one.started()
    program = shown("README.md", "events.messages").replace("nats://127.0.0.1:4222", own_nats.url)
    await dovecot.append(prefix, [mail(1), mail(2)])
    async with reading(own_nats.url, "mail") as reader:
        first, _ = await reader.wait_received(2)
    async with running(program, tmp_path) as output:
        assert first.headers["ce-id"] in await says(output, "mail 1")
        await says(output, "mail 2")
    assert await one.stop() == 0


async def test_the_contract_s_consumer_and_requester_work_with_the_rights_that_operations_gives_them(
    dovecot: Dovecot, documented_nats: DocumentedNats, mailbus: Maker, relay: ScriptedRelay, prefix: str, tmp_path: Path
) -> None:
    url = documented_nats.url
    settings = settings_for(url, "mail", with_relay(imap_account(dovecot, prefix, id="support"), relay))
    settings["nats"] |= {"user": "mailbus", "password": "secret"}
    one = mailbus(settings)
    one.start()
    await one.started()
    await dovecot.append(prefix, [mail(1)])
    await operator_makes_the_consumer(url)
    given: dict[str, Any] = {"NATS_URL": url, "CRM_PASSWORD": "secret", "SHOP_PASSWORD": "secret"}
    async with running(shown("docs/contract.md", "pull_subscribe_bind"), tmp_path, **given) as output:
        await says(output, "new epoch of INBOX start")
        await says(output, "mail 1 from")
        assert "8 bytes" in await says(output, "attachment")
    async with running(shown("docs/contract.md", "invoice-4711"), tmp_path, **given) as output:
        await says(output, "queued as invoice-4711")
    (message,) = await relay.received(1)
    assert message.rcpt_to == ["ada@customer.example"]
    assert b"invoice.pdf" in message.content
    assert await one.stop() == 0


async def operator_makes_the_consumer(url: str) -> None:
    """nats consumer add MAIL_IN crm --pull --filter 'mail.in.support.*.*' --deliver all --ack explicit --defaults"""
    nc = await nats.connect(url, user="admin", password="secret")
    try:
        config = ConsumerConfig(
            durable_name="crm",
            filter_subject="mail.in.support.*.*",
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
        )
        await nc.jetstream().add_consumer("MAIL_IN", config)
    finally:
        await nc.close()
