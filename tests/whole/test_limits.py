"""A machine with little: memory for a few mails at once, few file descriptors, thousands of changes. Nothing grows."""

import json
import os
import re
import resource
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import Mailbus, reading, settings_for, until
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]
MIB = 1024 * 1024
# A container's memory, for the process and the child that parses.
MEMORY_LIMIT_BYTES = 256 * MIB
MAIL_BYTES = 45 * MIB
# The first line of a mapping, and its file.
SMAPS_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ +(\S?.*)")
# One after the other they go through, so that more take more time and no more memory.
LARGE = int(os.environ.get("MAILBUS_TEST_LARGE", "3"))
CHANGES = int(os.environ.get("MAILBUS_TEST_CHANGES", "150"))


def account(stub: ImapStub, id: str) -> dict[str, Any]:
    imap = {"host": "127.0.0.1", "port": stub.port, "security": "none"}
    incoming = {"imap": imap, "initial": "all"}
    return {"id": id, "address": f"{id}@example.com", "password": "secret", "incoming": incoming}


def family(one: Mailbus) -> list[int]:
    """The process and its children."""
    assert one.process is not None
    pid = one.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} of {pid}")


def mapped_twice_bytes(one: int, other: int) -> int:
    """What two processes hold of the same files, programs' code above all: a container is charged for it once."""
    mine, theirs = file_pages(one), file_pages(other)
    return sum(min(mine[file], theirs[file]) for file in mine.keys() & theirs.keys())


def file_pages(pid: int) -> dict[str, int]:
    """File → bytes of it that a process has in memory and shares with others. Source: proc(5), smaps."""
    found: dict[str, int] = defaultdict(int)
    file = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if (begins := SMAPS_HEAD.match(line)) is not None:
            file = begins[1]
        elif file and line.startswith(("Shared_Clean:", "Shared_Dirty:")):
            found[file] += int(line.split()[1]) * 1024
    return found


@pytest.mark.fault("F06", "A12")
async def test_large_mails_at_once_fit_into_little_memory(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    head = b"Subject: large\r\nContent-Type: application/octet-stream\r\n\r\n"
    imap_stub.messages = {1: head + b"x" * 998 * 10 + b"\r\n" + b"y" * (MAIL_BYTES - len(head))}
    accounts = [account(imap_stub, f"a{number}") for number in range(LARGE)]
    one = mailbus(settings_for(own_nats.url, prefix, *accounts, limits={"memory": "64MiB"}), fresh=True)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(LARGE, limit_s=100)
        peaks = [status_bytes(pid, "VmHWM") for pid in family(one)]
        twice = mapped_twice_bytes(*family(one))
    print("peaks", [peak // MIB for peak in peaks], "of which in both", twice // MIB)
    assert sum(peaks) - twice < MEMORY_LIMIT_BYTES
    assert await one.stop() == 0


@pytest.mark.fault("F06")
async def test_without_file_descriptors_accounts_wait_and_say_so_and_come_once_there_are_some(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    accounts = [account(imap_stub, f"a{number}") for number in range(30)]
    one = mailbus(settings_for(own_nats.url, prefix, *accounts))
    await own_nats.kill()
    one.start(MAILBUS_LOG__LEVEL="info")
    # It has what it needs but NATS, and no account has begun.
    await until(lambda: one.log_file.exists() and bool(one.said("nats_unavailable")))
    assert one.process is not None
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (descriptors(one) + 12, 4096))
    await own_nats.start()
    # One account's trouble each: the process lives, and says why.
    await until(lambda: any("Too many open files" in line.get("error", "") for line in one.said("account_state")))
    assert one.exited is None
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (4096, 4096))
    await until(
        lambda: sum(bool(connection.idling) for connection in imap_stub.connections) == len(accounts),
        limit_s=60,
        what="all are connected",
    )
    assert await one.stop() == 0


@pytest.mark.fault("F09")
async def test_accounts_that_come_and_go_leave_nothing_behind(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, account(imap_stub, "stays")))
    one.start(MAILBUS_SEAL__KEYS=json.dumps(["x" * 43 + "="]))
    await one.started()
    async with reading(own_nats.url, prefix) as reader:

        async def come_and_go(times: int) -> tuple[int, int]:
            for number in range(times):
                await reader.ask("accounts.add", account(imap_stub, f"a{number}"))
                if number % 10 == 0:
                    await until(lambda: len(imap_stub.connections) > 1, what="it is connected")
                await reader.ask("accounts.remove", {"id": f"a{number}"})
            await until(lambda: len(imap_stub.connections) == 1, what="only the one that stays is connected")
            pid = family(one)[0]
            return status_bytes(pid, "VmRSS"), descriptors(one)

        rss, fds = await come_and_go(20)
        rss_after, fds_after = await come_and_go(CHANGES)
        print("RSS", rss // 1024, rss_after // 1024, "fds", fds, fds_after)
        assert fds_after <= fds + 1
        assert rss_after < rss + 6 * MIB
        assert threads(one) <= 48  # those of two pools, on a machine with many cores
    assert await one.stop() == 0


def descriptors(one: Mailbus) -> int:
    return len(list(Path(f"/proc/{family(one)[0]}/fd").iterdir()))


def threads(one: Mailbus) -> int:
    return len(list(Path(f"/proc/{family(one)[0]}/task").iterdir()))
