"""An account of a real Dovecot, served on a real NATS as in production; with capabilities hidden where wanted."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from service.budget import Budget
from service.bus import Bus
from service.clock import SystemClock
from service.commands import (
    Account,
    Answered,
    Context,
    Directory,
    Fleet,
    Keeper,
    MailAccess,
    SendAccess,
    serve_commands,
)
from service.commands.in_hand import InHand
from service.contract import Security, SendLimits
from service.imap import Pool, SessionOptions, WritingSession
from service.ingest import Allowance, Desks, Parser
from service.outbound import Originals
from service.parsing import Raw
from tests.outbound.conftest import idle_sender
from tests.servers.cyrus import Cyrus
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import PASSWORD, ImapServer
from tests.servers.proxy import FaultProxy

SPECIAL_USE = """
namespace inbox {
  mailbox Trash {
    special_use = \\Trash
    auto = create
  }
  mailbox Sent {
    special_use = \\Sent
    auto = create
  }
}
"""
# What every server has, and nothing that helps.
BARE = "IMAP4rev1 LITERAL+"


@dataclass
class Desk:
    """Somebody who asks commands of one account."""

    bus: Bus
    server: ImapServer
    user: str
    account: str = "support"
    pools: list[Pool] = field(default_factory=list)
    followed: Desks = field(default_factory=Desks)
    budget: Budget = field(default_factory=lambda: Budget(64 * 1024 * 1024))
    in_hand: InHand = field(default_factory=InHand)

    async def message(self, verb: str, body: object = None, **headers: str) -> Msg:
        """The whole answer."""
        payload = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.bus.nc.request(
            self.bus.subjects.cmd(self.account, verb), payload, timeout=30, headers=named or None
        )

    async def ask(self, verb: str, body: object = None, **headers: str) -> dict[str, Any]:
        """The answer of a command that must succeed."""
        answer = await self.message(verb, body, **headers)
        assert not code(answer), (answer.headers, answer.data)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def refused(self, verb: str, body: object = None, **headers: str) -> tuple[str, list[dict[str, str]]]:
        """Code and problems of a command that must not succeed."""
        answer = await self.message(verb, body, **headers)
        assert code(answer), answer.data
        assert (answer.headers or {}).get("Nats-Service-Error")
        return code(answer), json.loads(answer.data)["problems"]

    async def append(self, *messages: bytes, mailbox: str = "INBOX") -> None:
        """Mail that comes by another way."""
        await self.server.append(self.user, list(messages), mailbox)

    async def ids(self, mailbox: str = "INBOX", **request: Any) -> list[str]:
        """The ids of a search, oldest first unless it is sorted."""
        found: list[str] = (await self.ask("search", {"mailbox": mailbox} | request))["ids"]
        return found if "sort" in request else found[::-1]

    async def subjects(self, mailbox: str = "INBOX", **request: Any) -> list[str | None]:
        """The subjects of what a search finds, in its order."""
        return await self.subjects_of(await self.ids(mailbox, **request))

    async def subjects_of(self, ids: list[str]) -> list[str | None]:
        """By id."""
        answer = await self.ask("get", {"ids": ids, "properties": ["subject"]})
        assert answer["notFound"] == []
        by_id = {one["id"]: one["subject"] for one in answer["list"]}
        return [by_id[id] for id in ids]

    async def keywords(self, id: str) -> dict[str, bool]:
        """Of one message."""
        (one,) = (await self.ask("get", {"ids": [id], "properties": ["keywords"]}))["list"]
        found: dict[str, bool] = one["keywords"]
        return found


def code(msg: Msg) -> str:
    """ "" where the answer is no error."""
    return (msg.headers or {}).get("Nats-Service-Error-Code", "")


def mail(subject: str, *, id: str = "", body: str = "Hello.", **headers: str) -> bytes:
    """A small message."""
    lines = [f"Subject: {subject}", "From: Ada <ada@customer.example>", "To: support@example.com"]
    lines += [f"Message-ID: <{id}>"] if id else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + f"\r\n\r\n{body}\r\n").encode()


def options(server: ImapServer, user: str, **changes: Any) -> SessionOptions:
    usual: dict[str, Any] = {
        "account": "support",
        "host": server.host,
        "port": server.imap,
        "security": Security.NONE,
        "tls": None,
        "username": user,
        "password": PASSWORD,
        "message_limit": 1_000_000,
        "reply_s": 5.0,
        "connect_s": 10.0,
    }
    return SessionOptions(**(usual | changes))


async def nobody(_writer: str) -> bool:
    """Of other processes none lives."""
    return False


def alone(accounts: Mapping[str, Account]) -> Fleet:
    """A fleet of one, which has all accounts."""

    async def coming(_: str) -> bool:
        return False

    return Fleet("here", accounts, lambda: accounts, set, coming, lambda _: "here", asyncio.sleep, patience_s=0.0)


@asynccontextmanager
async def desk(bus: Bus, server: ImapServer, user: str, *, daily: int = 10**9, **changes: Any) -> AsyncIterator[Desk]:
    """Commands served for one account. `daily`: bytes that may be read; `changes`: to how its server is reached."""
    clock = SystemClock()
    pool = Pool(lambda: WritingSession.open(options(server, user, **changes), clock=clock), clock, where="support")
    sender = idle_sender(bus, "support")
    sends = SendAccess(
        SendLimits(5 * 86400, 30 * 86400), sender.waiting, Originals(bus, "support", "support@example.com")
    )
    followed = Desks()
    access = MailAccess(
        pool,
        Directory(clock, uid_of=followed.uid_of, turn_of=followed.turn_of),
        followed,
        256 * 1024,
        Raw.PROBLEM,
        allowance=Allowance(daily, clock),
    )
    accounts = {
        "support": Account("support", "support@example.com", sends, access),
        "sender": Account("sender", "sender@example.com", sends, None),
        "reader": Account("reader", "reader@example.com", None, access),
    }
    budget = Budget(64 * 1024 * 1024)
    context = Context(
        bus,
        clock,
        Parser(clock).make,
        budget.hold,
        1_000_000,
        Answered(Keeper(bus.key_value(bus.subjects.sends), "here/1", nobody, clock)),
    )
    async with asyncio.TaskGroup() as group:
        served = asyncio.Event()
        task = group.create_task(serve_commands(context, alone(accounts), served))
        async with asyncio.timeout(10):
            await served.wait()
        in_hand = accounts["support"].in_hand
        yield Desk(bus, server, user, pools=[pool], followed=followed, budget=budget, in_hand=in_hand)
        task.cancel()
    pool.abort()


@asynccontextmanager
async def dovecot_with(extra: str) -> AsyncIterator[Dovecot]:
    """A Dovecot of its own settings."""
    with tempfile.TemporaryDirectory(prefix="mailbus-dovecot-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = Dovecot(Path(folder), extra=extra)
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)


@pytest.fixture(scope="session")
async def whole_dovecot() -> AsyncIterator[Dovecot]:
    """With roles, and all that Dovecot can."""
    async with dovecot_with(SPECIAL_USE) as server:
        yield server


@pytest.fixture(scope="session")
async def bare_dovecot() -> AsyncIterator[Dovecot]:
    """The same, and it says that it can nothing."""
    async with dovecot_with(f"{SPECIAL_USE}\nimap_capability = {BARE}\n") as server:
        yield server


@pytest.fixture(scope="session")
async def uidplus_dovecot() -> AsyncIterator[Dovecot]:
    """UIDPLUS and nothing beside it: no MOVE."""
    async with dovecot_with(f"{SPECIAL_USE}\nimap_capability = {BARE} UIDPLUS\n") as server:
        yield server


@asynccontextmanager
async def silent(server: ImapServer) -> AsyncIterator[int]:
    """A port of the same server, which says of no message where it is now, as servers without UIDPLUS do."""
    proxy = FaultProxy(server.host, server.imap)
    await proxy.start()
    proxy.watch = lambda _way, chunk: chunk.replace(b"[APPENDUID", b"[X-APPEND").replace(b"[COPYUID", b"[X-COPY")
    try:
        yield proxy.port
    finally:
        await proxy.stop()


@pytest.fixture
async def whole(bus: Bus, whole_dovecot: Dovecot, prefix: str) -> AsyncIterator[Desk]:
    async with desk(bus, whole_dovecot, prefix) as one:
        yield one


@pytest.fixture
async def bare(bus: Bus, bare_dovecot: Dovecot, prefix: str) -> AsyncIterator[Desk]:
    async with silent(bare_dovecot) as port, desk(bus, bare_dovecot, prefix, port=port) as one:
        yield one


@pytest.fixture
async def uidplus(bus: Bus, uidplus_dovecot: Dovecot, prefix: str) -> AsyncIterator[Desk]:
    async with desk(bus, uidplus_dovecot, prefix) as one:
        yield one


@pytest.fixture(params=["whole", "cyrus", "bare"])
async def either(
    request: pytest.FixtureRequest, bus: Bus, whole_dovecot: Dovecot, cyrus: Cyrus, bare_dovecot: Dovecot, prefix: str
) -> AsyncIterator[Desk]:
    """The account on two servers that offer everything, and on one that offers nothing."""
    if request.param != "bare":
        async with desk(bus, cyrus if request.param == "cyrus" else whole_dovecot, prefix) as one:
            yield one
    else:
        async with silent(bare_dovecot) as port, desk(bus, bare_dovecot, prefix, port=port) as one:
            yield one


@pytest.fixture(params=["move", "cyrus", "uidplus"])
async def moving(
    request: pytest.FixtureRequest,
    bus: Bus,
    whole_dovecot: Dovecot,
    cyrus: Cyrus,
    uidplus_dovecot: Dovecot,
    prefix: str,
) -> AsyncIterator[Desk]:
    """The account on two servers with MOVE, and on one that has UIDPLUS alone."""
    servers: dict[str, ImapServer] = {"move": whole_dovecot, "cyrus": cyrus, "uidplus": uidplus_dovecot}
    async with desk(bus, servers[request.param], prefix) as one:
        yield one
