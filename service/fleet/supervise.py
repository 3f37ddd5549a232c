"""A piece of work that shall run for ever: verdicts → states and pauses, then again.

Matches on the verdicts of errors.py and on nothing else: any other exception is a bug, shown whole, counted,
and its account goes on slowly while the others never notice.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from service.clock import Clock, backoff_s
from service.contract import AccountState
from service.errors import AuthRefused, Halted, MailbusError, Permanent, Superseded, Transient, Uncertain, verdict_of
from service.observe import log, metrics
from service.tasks import cancellable

# A connection has proved itself when it caught up and then lived on for this long.
PROOF_S: Final = 30.0
RETRY_AFTER_LIMIT_S: Final = 3600.0
# What serves all accounts is missed by all of them: this process's key lives for ten seconds. And a bug's trace is no
# flood: what breaks again within this time waits for as long.
SERVES_ALL_AGAIN_S: Final = 10.0
SERVES_ALL_SOON_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between tries, by verdict. Providers lock accounts that try a wrong password often."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    auth_s: float = 300.0
    permanent_s: float = 300.0
    superseded_s: float = 60.0
    bug_s: float = 60.0


class _Proof:
    """Whether this life may reset the back-off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None

    def __call__(self) -> None:
        if self._since is None:
            self._since = self._clock.monotonic()

    def holds(self) -> bool:
        return self._since is not None and self._clock.monotonic() - self._since >= PROOF_S


async def supervise(
    life: Callable[[Callable[[], None]], Awaitable[None]],
    *,
    report: Callable[[AccountState, MailbusError], None],
    pace: Pace,
    clock: Clock,
    where: str,
) -> None:
    """Run `life` again and again until cancelled. It is given a function to call once it works."""
    failures = 0
    while True:
        proof = _Proof(clock)
        try:
            with cancellable():
                await life(proof)
            error: BaseException = Transient("ended", where=where)
        except BaseExceptionGroup as failed:
            error = verdict_of(failed)
            if not isinstance(error, Exception):
                raise
        except Exception as exc:  # noqa: BLE001 the one place where bugs end: counted, shown whole, contained
            error = exc
        failures = 1 if proof.holds() else failures + 1
        state, shown, pause = _verdict(error, failures, pace, clock, where)
        report(state, shown)
        await clock.sleep(pause)


async def unending(work: Callable[[], Awaitable[None]], *, clock: Clock, where: str) -> None:
    """Do what serves all accounts until cancelled: what a bug ends is begun again. Raises what somebody must mend."""
    while True:
        began = clock.monotonic()
        try:
            with cancellable():
                await work()
            error: BaseException = RuntimeError("ended")
        except BaseExceptionGroup as failed:
            error = verdict_of(failed)
            if not isinstance(error, Exception):
                raise
        except Exception as exc:  # noqa: BLE001 counted and shown whole: one bad key or file must not end all accounts
            error = exc
        match error:
            case Transient():
                log.warning("begun_again", where=where, error=str(error))
            case MailbusError():
                raise error
            case _:
                metrics.BUGS.inc()
                log.error("bug", where=where, exc_info=error)
        lived_s = clock.monotonic() - began
        await clock.sleep(SERVES_ALL_SOON_S if lived_s > SERVES_ALL_AGAIN_S else SERVES_ALL_AGAIN_S)


def pause_s(error: MailbusError, failures: int, *, pace: Pace, clock: Clock) -> float:
    """Seconds before the next try, after so many failures in a row."""
    return _verdict(error, failures, pace, clock, "")[2]


def _verdict(
    error: BaseException, failures: int, pace: Pace, clock: Clock, where: str
) -> tuple[AccountState, MailbusError, float]:
    chance = clock.chance()
    match error:
        case Superseded():
            return AccountState.DEGRADED, error, pace.superseded_s * (1 + chance / 10)
        case AuthRefused():
            return AccountState.AUTH_FAILED, error, pace.auth_s * (1 + chance / 10)
        case Transient():
            pause = backoff_s(failures, first_s=pace.first_s, factor=pace.factor, max_s=pace.max_s, chance=chance)
            told = min(error.retry_after_s or 0.0, RETRY_AFTER_LIMIT_S) * (1 + chance / 10)
            return AccountState.DISCONNECTED, error, max(pause, told)
        case Permanent() | Uncertain():
            return AccountState.DEGRADED, error, pace.permanent_s * (1 + chance / 10)
        case _:
            metrics.BUGS.inc()
            log.error("bug", where=where, exc_info=error)
            shown = Halted(f"a bug in mailbus: {type(error).__name__}", where=where, remedy="see the log; report it")
            return AccountState.DEGRADED, shown, pace.bug_s
