"""The peers and the references as child processes → messages a second, each result counted.

The programs of peers/ time themselves: from after their connections and streams are there to the last
acknowledgement. The references (C programs that do less) are timed from outside, as whole processes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.bench.bus import jetstream
from tests.bench.ground import NODE, PEERS, BenchError, Ground, Turn, call, program
from tests.servers.imap_server import PASSWORD

# By default mbsync waits for the disk at every mail, as nobody else in the run does: it is shown with and without.
MBSYNC: Final = """
FSync {fsync}

IMAPAccount far
Host {host}
Port {port}
User {user}
Pass {password}
{tls} None
AuthMechs LOGIN

IMAPStore far
Account far

MaildirStore near
Path {folder}/
Inbox {folder}/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
"""


async def node_ingest(ground: Ground, user: str, count: int) -> float:
    """imapflow + mailparser + nats.js."""
    async with ground.turn("node") as turn:
        said = await call([program("node"), "node-ingest.mjs", *_where(ground, user, turn)], cwd=NODE)
        return await checked(turn, said, "PEER_NODE", count)


async def python_ingest(ground: Ground, user: str, count: int) -> float:
    """IMAPClient + email + nats-py."""
    async with ground.turn("python") as turn:
        said = await call([sys.executable, str(PEERS / "py-ingest.py"), *_where(ground, user, turn)])
        return await checked(turn, said, "PEER_PY", count)


async def node_send(turn: Turn, sink_port: int, count: int, lines: int) -> float:
    """nats.js + a nodemailer pool of 10; mails of so many lines of 71 characters."""
    where = ["127.0.0.1", str(sink_port), turn.nats_url, str(count), str(lines)]
    said = await call([program("node"), "node-send.mjs", *where], cwd=NODE)
    return await checked(turn, said, "PEER_STATUS", count)


async def mbsync(ground: Ground, user: str, count: int, *, fsync: str = "yes") -> float:
    """Download only: IMAP → Maildir. `fsync` as in its settings: yes or no."""
    async with ground.turn("mbsync") as turn:
        folder = turn.folder / "mail"
        folder.mkdir()
        config = turn.folder / "mbsyncrc"
        config.write_text(await mbsyncrc(ground.dovecot.imap, user, folder, fsync=fsync))
        start = time.perf_counter()
        await call([program("mbsync"), "--quiet", "--config", str(config), "all"])
        seconds = time.perf_counter() - start
        there = sum(1 for _ in folder.glob("INBOX/*/*"))
        if there != count:
            raise BenchError(f"mbsync: {there} files, not {count}")
        return count / seconds


async def mbsyncrc(port: int, user: str, folder: Path, *, fsync: str) -> str:
    """Its settings: a user's INBOX on 127.0.0.1 into a folder."""
    said = await call([program("mbsync"), "--version"])
    # 1.5 renamed SSLType.
    version = tuple(int(part) for part in said.split()[-1].split(".")[:2])
    tls = "TLSType" if version >= (1, 5) else "SSLType"
    return MBSYNC.format(host="127.0.0.1", port=port, user=user, password=PASSWORD, folder=folder, fsync=fsync, tls=tls)


async def smtp_source(sink_port: int, count: int, size: int) -> float:
    """Ten connections that send ready-made mail."""
    where = f"127.0.0.1:{sink_port}"
    start = time.perf_counter()
    options = ["-s", "10", "-m", str(count), "-l", str(size), "-f", "a@x.example", "-t", "b@y.example"]
    await call([program("smtp-source"), *options, where])
    return count / (time.perf_counter() - start)


def _where(ground: Ground, user: str, turn: Turn) -> list[str]:
    return [ground.dovecot.host, str(ground.dovecot.imap), user, PASSWORD, turn.nats_url]


async def checked(turn: Turn, said: str, stream: str, count: int) -> float:
    """What the program says of itself, once its stream holds what it should."""
    result: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    async with jetstream(turn) as context:
        there = (await context.stream_info(stream)).state.messages
    if not result["count"] == there == count:
        raise BenchError(f"{result['peer']}: {result['count']} counted, {there} in {stream}, not {count}")
    return float(result["per_second"])
