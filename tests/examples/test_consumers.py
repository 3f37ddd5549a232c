"""The examples of consumers, killed again and again while mail comes: each mail is handled once in effect."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from service.bus import Bus
from tests.bench.ground import NODE, BenchError, install_node_packages, program
from tests.ingest.harness import Box, following
from tests.servers.bus import bus_at
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import until
from tests.servers.nats import NatsServer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
MAILS, KILLS = 40, 3
FILE = b"JVBERi0xLjc="  # eight bytes
# A consumer that was killed holds what it had not acknowledged for so long.
ACK_WAIT_S = 0.5


@dataclass
class Consumer:
    """A language's program: how it is run, and what it has done so far, by `subject` and bytes."""

    command: list[str]
    handled: Callable[[], list[tuple[str, int]]]


def mail(number: int) -> bytes:
    return (
        b"Subject: mail %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n%b\r\n--b--\r\n" % (number, FILE)
    )


def in_python(url: str, folder: Path) -> Consumer:
    file = folder / "mails.db"

    def handled() -> list[tuple[str, int]]:
        if not file.exists():
            return []
        with sqlite3.connect(file) as database:
            try:
                return list(database.execute("SELECT subject, bytes FROM mails"))
            except sqlite3.OperationalError:  # no table yet
                return []

    return Consumer([sys.executable, str(EXAMPLES / "consumer.py"), url, "crm", str(file)], handled)


def in_node(url: str, folder: Path) -> Consumer:
    try:
        node = program("node")
        install_node_packages()
    except BenchError as exc:
        pytest.fail(str(exc))
    shutil.copy(EXAMPLES / "consumer.mjs", folder)
    (folder / "node_modules").symlink_to(NODE / "node_modules")
    return Consumer([node, str(folder / "consumer.mjs"), url, "crm", str(folder / "mails")], partial(in_files, folder))


def in_go(url: str, folder: Path) -> Consumer:
    shutil.copy(EXAMPLES / "consumer.go", folder)
    for words in ("mod init crm", "mod tidy", "vet .", "build -o consumer ."):
        done = subprocess.run(["go", *words.split()], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return Consumer([str(folder / "consumer"), url, "crm", str(folder / "mails")], partial(in_files, folder))


def in_files(folder: Path) -> list[tuple[str, int]]:
    """What is handled by a program that writes a file for each mail."""
    results = [json.loads(file.read_text()) for file in (folder / "mails").glob("*.json")]
    return [(result["subject"], result["bytes"]) for result in results]


# Go is two hundred megabytes, and takes its packages from where CI may not go: it is tested where it is installed.
LANGUAGES = [in_python, in_node] + ([in_go] if shutil.which("go") else [])


@contextmanager
def running(consumer: Consumer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Until it is killed."""
    with open(folder / "consumer.log", "ab") as output:
        process = subprocess.Popen(consumer.command, stdout=output, stderr=output, env=os.environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


async def make_consumer(bus: Bus) -> None:
    """As an operator does."""
    config = {
        "durable_name": "crm",
        "filter_subject": "mail.in.*.*.received",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT_S * 1e9),
    }
    request = json.dumps({"stream_name": "MAIL_IN", "config": config}).encode()
    reply = await bus.nc.request("$JS.API.CONSUMER.DURABLE.CREATE.MAIL_IN.crm", request)
    assert "error" not in json.loads(reply.data), reply.data


async def unhandled(bus: Bus) -> int:
    """Events that nobody has acknowledged."""
    info = json.loads((await bus.nc.request("$JS.API.CONSUMER.INFO.MAIL_IN.crm", b"")).data)
    return int(info["num_pending"]) + int(info["num_ack_pending"])


async def until_all_acknowledged(bus: Bus) -> None:
    async with asyncio.timeout(30):
        while await unhandled(bus):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_mail_is_handled_once_in_effect_however_often_the_consumer_is_killed(
    own_nats: NatsServer, imap_stub: ImapStub, tmp_path: Path, language: Callable[[str, Path], Consumer]
) -> None:
    consumer = language(own_nats.url, tmp_path)
    imap_stub.messages = {1: mail(1)}
    async with bus_at(own_nats.url, "mail") as bus, following(bus, Box(imap_stub.port)):
        await make_consumer(bus)
        for kill in range(KILLS):
            there = len(consumer.handled())
            with running(consumer, tmp_path) as process:
                for uid in range(kill * 10 + 2, kill * 10 + 12):
                    await imap_stub.deliver(uid, mail(uid))
                await until(lambda: len(consumer.handled()) > there + 2 * kill or process.poll() is not None)  # noqa: B023
                assert process.poll() is None, (tmp_path / "consumer.log").read_text()
        for uid in range(KILLS * 10 + 2, MAILS + 1):
            await imap_stub.deliver(uid, mail(uid))
        with running(consumer, tmp_path):
            await until(lambda: len(consumer.handled()) >= MAILS)
            await until_all_acknowledged(bus)
            # Everything once more, as after a consumer that was made anew: nothing is handled again.
            await bus.nc.request("$JS.API.CONSUMER.DELETE.MAIL_IN.crm", b"")
        await make_consumer(bus)
        assert await unhandled(bus) == MAILS
        with running(consumer, tmp_path):
            await until_all_acknowledged(bus)
    handled = consumer.handled()
    assert sorted(handled) == sorted((f"mail {number}", 8) for number in range(1, MAILS + 1))
