"""A sender in a process of its own, to be ended at any of its steps.

Arguments: NATS URL, prefix, relay port, policy, account; and where copies go, an IMAP server's port and user.

Ends by itself, with exit code 0, once nothing is queued or waits.
"""

import asyncio
import os
from typing import Any

from service.budget import Budget, Share
from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.clock import SystemClock
from service.contract import Security, SendRequest
from service.imap import Pool, SessionOptions, WritingSession
from service.observe.steps import STOP_EXIT_CODE
from service.outbound import Deliveries, OutboundOptions, Sender, SentMailbox, SentOptions
from service.outbound.mail import Mail
from service.smtp import Relay, SmtpOptions
from tests.servers.forked import Forked
from tests.servers.imap_server import PASSWORD
from tests.servers.mailbus import until

# Of one process.
LIMIT_S = 40.0


async def waiting(bus: Bus, account: str) -> bool:
    """Whether a request of an account is queued, waits or is due."""
    subjects = bus.subjects
    if await bus.pending(subjects.stream_out, subjects.out(account)):
        return True
    # A request goes from waiting to due and back: only one look at both misses nothing.
    later = await bus.queued(subjects.stream_later, ">")
    return any(f".{account}." in f"{subject}." for subject in later)


def sent_mailbox(bus: Bus, account: str, port: str, user: str) -> SentMailbox:
    """On this machine, in clear text."""
    clock = SystemClock()
    where = SessionOptions(
        account, "127.0.0.1", int(port), Security.NONE, None, user, PASSWORD, message_limit=1_000_000
    )
    pool = Pool(lambda: WritingSession.open(where, clock=clock), clock, where=account)
    options = SentOptions(account, copies=True, insists=True, life_s=3600.0)
    return SentMailbox(bus, pool, options, clock, memory=Share(Budget(1 << 26), 1 << 25), degraded=lambda _: None)


async def lives(pid: str) -> bool:
    """Whether a process is there."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


async def main(url: str, prefix: str, port: str, uncertain: str, account: str, *imap: str) -> None:
    """Send until all is done."""
    clock = SystemClock()
    async with open_bus(NatsOptions(servers=(url,), prefix=prefix), StreamOptions()) as bus:
        options = OutboundOptions(
            account, "me@example.com", uncertain="hold" if uncertain == "hold" else "retry", retry_first_s=0.1
        )
        relay = Relay(SmtpOptions(account, "127.0.0.1", int(port), Security.NONE, login=False), clock)
        sent = sent_mailbox(bus, account, *imap) if imap else None
        deliveries, connecting = (
            Deliveries(4, Budget(1 << 26), writer=f"{os.getpid()}", lives=lives),
            asyncio.Semaphore(4),
        )
        sender = Sender(bus, relay, options, deliveries=deliveries, connecting=connecting, clock=clock, sent=sent)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sender.run(lambda: None))]
            if sent is not None:
                tasks.append(group.create_task(sent.run(lambda: None)))
            # Nothing rings when a stream becomes empty.
            while await waiting(bus, account):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()


def begin(*given: str) -> None:
    """What the process does."""
    from service.bus import queue
    from service.outbound import hands

    # A job whose process was killed comes back after this, not after 30 s.
    for module in (queue, hands):
        module.__dict__["ACK_WAIT_S"] = 1.0
    asyncio.run(main(*given))


def begin_in_parts(*given: str) -> None:
    """One that lets others go first after each part of a mailing."""
    from service.outbound import mailing

    mailing.__dict__["IN_HAND_S"] = 0.0
    begin(*given)


def begin_poisoned(*given: str) -> None:
    """One that ends as soon as it builds a mail with the subject `poison`."""
    from service.bus import queue
    from service.outbound import hands, task

    for module in (queue, hands):
        module.__dict__["ACK_WAIT_S"] = 0.5
    build = task.make_mail

    def make_mail(request: SendRequest, *rest: Any, **named: Any) -> Mail:
        if request.subject == "poison":
            os._exit(STOP_EXIT_CODE)
        return build(request, *rest, **named)

    task.__dict__["make_mail"] = make_mail
    asyncio.run(main(*given))


async def ended(child: Forked) -> int:
    """Until it ends by itself; gives its exit code."""
    try:
        await until(lambda: child.poll() is not None, limit_s=LIMIT_S, what="the sender did not end")
    finally:
        child.kill()
    return child.wait(10)
