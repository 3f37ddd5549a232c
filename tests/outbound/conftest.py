"""A sender on a real NATS server and a scripted relay, under a prefix of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from service.budget import Budget
from service.bus import Bus
from service.clock import SystemClock
from service.contract import EmailSubmission, Security
from service.errors import MailbusError
from service.outbound import Deliveries, OutboundOptions, Sender, SentMailbox
from service.smtp import Relay, SmtpOptions, Timeouts
from tests.servers.smtp import ScriptedRelay
from tests.servers.smtp_steps import StepRelay

LIMIT_S = 30.0
FINAL = ("sent", "failed")


@dataclass
class Event:
    """One status event as a consumer reads it."""

    state: str
    id: str
    body: EmailSubmission
    headers: dict[str, str]


@dataclass
class Post:
    """The bus, as requesters and consumers see it."""

    bus: Bus
    account: str = "a"
    events: list[Event] = field(default_factory=list)
    dead: list[Msg] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Collect what is published as status and dead letter."""
        prefix = self.bus.subjects.prefix
        js = self.bus.nc.jetstream()

        async def status(msg: Msg) -> None:
            self.events.append(
                Event(
                    msg.subject.rpartition(".")[2],
                    (msg.headers or {})["ce-id"],
                    msgspec.json.decode(msg.data, type=EmailSubmission),
                    dict(msg.headers or {}),
                )
            )
            self.news.set()

        async def dead(msg: Msg) -> None:
            self.dead.append(msg)
            self.news.set()

        await js.subscribe(f"{prefix}.status.>", cb=status, ordered_consumer=True)
        await js.subscribe(f"{prefix}.dead.>", cb=dead, ordered_consumer=True)

    async def request(self, id: str | None = None, headers: dict[str, str] | None = None, **fields: Any) -> None:
        """Publish a request."""
        body: dict[str, Any] = {"to": [{"email": "a@x.example"}]} | fields
        if "rawBlobId" not in fields:
            body = {"subject": "s", "text": "t"} | body
        if id is not None:
            body["id"] = id
        await self.bus.publish(self.bus.subjects.out(self.account), json.dumps(body).encode(), headers)

    async def until(self, condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait for a condition on what was collected."""
        async with asyncio.timeout(limit_s):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def states(self, count: int) -> list[tuple[str, str]]:
        """Wait for so many events; gives id and state of each."""
        await self.until(lambda: len(self.events) >= count)
        return [(event.body.id, event.state) for event in self.events]

    async def empty(self, limit_s: float = LIMIT_S) -> None:
        """Wait until nothing is queued, waits, or lies in the outbox."""
        subjects = self.bus.subjects
        async with asyncio.timeout(limit_s):
            while (  # noqa: ASYNC110 a stream that becomes empty rings no bell
                await self.bus.pending(subjects.stream_out, ">")
                or await self.bus.pending(subjects.stream_later, ">")
                or await self.bus.pending(f"OBJ_{subjects.outbox}", f"$O.{subjects.outbox}.M.>")
            ):
                await asyncio.sleep(0.02)


@pytest.fixture
async def post(bus: Bus) -> Post:
    made = Post(bus)
    await made.watch()
    return made


def smtp_options(relay: ScriptedRelay | StepRelay, **changes: Any) -> SmtpOptions:
    options: dict[str, Any] = {
        "account": "a", "host": "127.0.0.1", "port": relay.port, "security": Security.NONE, "login": False,
        "timeouts": Timeouts(connect_s=5),
    } | changes  # fmt: skip
    return SmtpOptions(**options)


def outbound_options(**changes: Any) -> OutboundOptions:
    options: dict[str, Any] = {"account": "a", "address": "me@example.com", "retry_first_s": 0.05} | changes
    return OutboundOptions(**options)


def deliveries(at_once: int = 16, memory: int = 64 * 1024 * 1024) -> Deliveries:
    """What the senders of a process share."""
    return Deliveries(at_once, Budget(memory), writer="test/1", lives=nobody)


async def nobody(_writer: str) -> bool:
    """Whether a process lives, as one who knows none says."""
    return False


@asynccontextmanager
async def sending(
    bus: Bus,
    relay: ScriptedRelay | StepRelay,
    *,
    smtp: dict[str, Any] | None = None,
    places: Deliveries | None = None,
    others: Sequence[ScriptedRelay] = (),
    sent: SentMailbox | None = None,
    clock: SystemClock | None = None,
    proved: Callable[[], None] = lambda: None,
    **options: Any,
) -> AsyncIterator[Sender]:
    """A sender that runs while the block does. `places`: the process's, where several senders share them."""
    clock = clock or SystemClock()
    sender = Sender(
        bus,
        Relay(smtp_options(relay, **(smtp or {})), clock),
        outbound_options(**options),
        deliveries=places or deliveries(),
        connecting=asyncio.Semaphore(16),
        clock=clock,
        others=[Relay(smtp_options(one), clock) for one in others],
        sent=sent,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(sender.run(proved), name="sender")
        try:
            yield sender
        finally:
            task.cancel()


def idle_sender(bus: Bus, account: str = "a") -> Sender:
    """A sender that takes nothing."""
    clock = SystemClock()
    relay = Relay(SmtpOptions(account, "127.0.0.1", 9, Security.NONE, login=False), clock)
    connecting = asyncio.Semaphore(1)
    return Sender(
        bus, relay, outbound_options(account=account), deliveries=deliveries(1), connecting=connecting, clock=clock
    )


async def found_lost(sender: Sender) -> MailbusError:
    """Why the relay is taken for lost."""
    async with asyncio.timeout(LIMIT_S):
        return await sender._deliverer.relays.wait_lost()


def delivered(event: Event) -> dict[str, str]:
    """Recipient → delivered."""
    return {recipient: one.delivered for recipient, one in event.body.delivery_status.items()}


def soon(seconds: float) -> str:
    """An RFC 3339 time in the future."""
    return (SystemClock().now() + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose process was killed comes back after a second here too."""
    monkeypatch.setattr("service.bus.queue.ACK_WAIT_S", 1.0)
    monkeypatch.setattr("service.outbound.hands.ACK_WAIT_S", 1.0)
