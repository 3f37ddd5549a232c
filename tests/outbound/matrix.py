"""Relays that each do one thing at one step, and the senders of their accounts: in this process, or in one of its own.

As a program, `python -m tests.outbound.matrix FILE`: sends for all accounts that FILE names, as `Plan`, and ends with
exit code 0 once nothing is queued or waits.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

import msgspec

from service.budget import Budget
from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.clock import SystemClock
from service.contract import AccountState, Security
from service.errors import MailbusError
from service.fleet.supervise import Pace, supervise
from service.login import LoginGate
from service.outbound import Deliveries, OutboundOptions, Sender
from service.smtp import Relay, SmtpOptions, Timeouts
from tests.outbound.child import lives
from tests.servers.smtp_steps import PASSWORD, USER, Act, Step, StepRelay

Kind = Literal["data", "bdat", "lmtp"]
WHO: Final = ("a@x.example", "b@x.example", "c@x.example")
# Of one connection: what comes before a mail is the same in all kinds.
BEFORE: Final = (Step.CONNECT, Step.BANNER, Step.HELLO, Step.STARTTLS, Step.HELLO_AGAIN, Step.AUTH)
ANY: Final = (Act.REFUSE, Act.DEFER, Act.STALL, Act.DROP, Act.CLOSE)
# Everything that a relay may let one wait for, so that what is tested is not the waiting.
TIMES: Final = Timeouts(connect_s=2.0, mail_s=0.5, rcpt_s=0.5, data_s=0.5, block_s=0.5, final_s=0.5)
PACE: Final = Pace(first_s=0.05, max_s=0.2, auth_s=0.1, permanent_s=0.1, superseded_s=0.1, bug_s=0.1)
QUICK: Final = {
    "service.bus.queue.ACK_WAIT_S": 1.0,
    "service.outbound.hands.ACK_WAIT_S": 1.0,
    "service.outbound.deliver.AGAIN_S": 0.2,
    "service.outbound.ways.AGAIN_S": 0.2,
    "service.outbound.relays.PATIENCE_S": 0.0,
}


class Case(msgspec.Struct, frozen=True):
    """An account, and the relay that it sends by."""

    account: str
    port: int
    lmtp: bool = False
    secure: bool = False
    hold: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a process of its own is told."""

    nats: str
    prefix: str
    authority: str
    cases: list[Case]


def faults(kind: Kind) -> Iterator[tuple[Step, Act, str]]:
    """Each thing that may go wrong, and whom it is about."""
    if kind == "bdat":
        for step in BEFORE:
            for act in (Act.STALL, Act.DROP) if step is Step.CONNECT else ANY:
                yield step, act, ""
    for step in (Step.MAIL, Step.GO, Step.BODY, Step.RSET):
        for act in ANY:
            yield step, act, ""
    for who in WHO:
        for act in ANY:
            yield Step.RCPT, act, who
    for who in WHO[:2] if kind == "lmtp" else ("",):
        for act in Act:
            yield Step.END, act, who
    for act in (Act.STALL, Act.DROP, Act.CLOSE):
        yield Step.QUIT, act, ""


def relay_of(kind: Kind, step: Step, act: Act, who: str) -> StepRelay:
    """b is put off at its first RCPT, c is never taken; TLS and a login where the fault is in them."""
    return StepRelay(
        at=step,
        do=act,
        who=who,
        lmtp=kind == "lmtp",
        offers=("PIPELINING", "8BITMIME") if kind == "data" else ("PIPELINING", "CHUNKING", "8BITMIME"),
        login=step in BEFORE,
        rcpt={WHO[1]: ["451 4.2.0 busy", "250 2.1.5 OK"], WHO[2]: ["550 5.1.1 unknown"]},
    )


def sender_for(bus: Bus, case: Case, tls: ssl.SSLContext, places: Deliveries) -> Sender:
    """One account's, impatient."""
    clock = SystemClock()
    security = Security.STARTTLS if case.secure else Security.NONE
    relay = SmtpOptions(
        case.account,
        "127.0.0.1",
        case.port,
        security,
        tls=tls if case.secure else None,
        username=USER,
        password=PASSWORD,
        login=case.secure,
        lmtp=case.lmtp,
        timeouts=TIMES,
        connections=1,
        gate=LoginGate(0.1),
    )
    options = OutboundOptions(
        case.account,
        "me@example.com",
        uncertain="hold" if case.hold else "retry",
        retry_first_s=0.1,
        retry_max_s=0.5,
    )
    relayed = Relay(relay, clock)
    return Sender(bus, relayed, options, deliveries=places, connecting=asyncio.Semaphore(16), clock=clock)


async def send(bus: Bus, cases: Sequence[Case], authority: str) -> None:
    """All accounts' senders, supervised as mailbus does, until cancelled."""
    places = Deliveries(16, Budget(1 << 26), writer=f"{os.getpid()}", lives=lives)
    tls = ssl.create_default_context(cafile=authority)

    def report(state: AccountState, error: MailbusError) -> None:
        pass

    async with asyncio.TaskGroup() as group:
        for case in cases:
            sender = sender_for(bus, case, tls, places)
            for life in (sender.watch_relay, sender.run):
                group.create_task(
                    supervise(life, report=report, pace=PACE, clock=SystemClock(), where=case.account),
                    name=case.account,
                )


async def queued(bus: Bus) -> bool:
    """Whether any request is queued, waits or is due."""
    subjects = bus.subjects
    # A request goes from waiting to due and back within one stream: one look at it misses nothing.
    return bool(await bus.pending(subjects.stream_out, ">") or await bus.pending(subjects.stream_later, ">"))


async def main(plan: Plan) -> None:
    """Until nothing is queued."""
    async with open_bus(NatsOptions(servers=(plan.nats,), prefix=plan.prefix), StreamOptions()) as bus:
        sending = asyncio.create_task(send(bus, plan.cases, plan.authority))
        while await queued(bus):  # noqa: ASYNC110 an empty stream rings no bell
            await asyncio.sleep(0.1)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


if __name__ == "__main__":
    for name, value in QUICK.items():
        module, _, constant = name.rpartition(".")
        import_module(module).__dict__[constant] = value
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))
