"""What NATS does not take or tell for now → tried until it does: what a relay said must not be lost over that.

Used by sends.py and settle.py.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from service.clock import Clock, backoff_s
from service.errors import Transient
from service.observe import log

T = TypeVar("T")

# An outcome that is not written is a mail sent twice: NATS gets a minute to come back.
INSIST_S: Final = 75.0
# So long before that no further try begins: where NATS is silent each takes its time.
LAST_TRY_S: Final = 10.0
_FIRST_S: Final = 0.2
_MAX_S: Final = 10.0


async def insist(work: Callable[[], Awaitable[T]], key: str, clock: Clock) -> T:
    """What `work` gives, which is tried again for INSIST_S at the most. `key`: the request's. Raises Transient."""
    until = clock.monotonic() + INSIST_S - LAST_TRY_S
    tries = 0
    while True:
        try:
            return await work()
        except Transient as exc:
            tries += 1
            pause_s = backoff_s(tries, first_s=_FIRST_S, factor=2, max_s=_MAX_S, chance=1)
            if clock.monotonic() + pause_s > until:
                raise
            log.warning("send_state_not_written", key=key, error=exc.what, tries=tries)
            await clock.sleep(pause_s)
