"""A sender in a process of its own, to be ended at any of its steps.

Arguments: NATS URL, prefix, relay port, policy, account.

Ends by itself, with exit code 0, once nothing is queued or waits.
"""

import asyncio
import sys

from service.bus import NatsOptions, StreamOptions, open_bus
from service.clock import SystemClock
from service.contract import Security
from service.outbound import OutboundOptions, Sender
from service.smtp import Relay, SmtpOptions


async def main(url: str, prefix: str, port: str, uncertain: str, account: str) -> None:
    """Send until all is done."""
    clock = SystemClock()
    async with open_bus(NatsOptions(servers=(url,), prefix=prefix), StreamOptions()) as bus:
        options = OutboundOptions(
            account, "me@example.com", uncertain="hold" if uncertain == "hold" else "retry", retry_first_s=0.1
        )
        relay = Relay(SmtpOptions(account, "127.0.0.1", int(port), Security.NONE, login=False), clock)
        sender = Sender(
            bus, relay, options, deliveries=asyncio.Semaphore(4), connecting=asyncio.Semaphore(4), clock=clock
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sender.run(lambda: None))
            subjects = bus.subjects
            # Nothing rings when a stream becomes empty.
            mine = (
                (subjects.stream_out, subjects.out(account)),
                (subjects.stream_later, subjects.later(account, "*")),
                (subjects.stream_later, subjects.due(account)),
            )
            while sum([await bus.pending(*one) for one in mine]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            task.cancel()


if __name__ == "__main__":
    from service.bus import queue
    from service.outbound import hands

    # A job whose process was killed comes back after this, not after 30 s.
    for module in (queue, hands):
        module.__dict__["ACK_WAIT_S"] = 1.0
    asyncio.run(main(*sys.argv[1:6]))
