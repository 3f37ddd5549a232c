"""Verdicts → states and pauses; a bug is counted and contained. A clock of our own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.contract import AccountState
from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Superseded, Transient, Uncertain
from service.fleet import Pace, supervise, unending
from service.fleet.supervise import PROOF_S, RETRY_AFTER_LIMIT_S, SERVES_ALL_AGAIN_S, SERVES_ALL_SOON_S
from service.observe import metrics
from tests.servers.clock import FakeClock

PACE = Pace(first_s=1, factor=2, max_s=60)


class Life:
    """A piece of work that ends as told, one ending a life; the last one for ever."""

    def __init__(self, *endings: BaseException | None, proves: bool = False, lives_s: float = 0) -> None:
        self.endings = list(endings)
        self.proves = proves
        self.lives_s = lives_s
        self.count = 0
        self.clock = FakeClock(luck=1.0)  # whole back-off: no jitter to reckon with
        self.said: list[tuple[AccountState, MailbusError]] = []

    async def __call__(self, proof: Callable[[], None]) -> None:
        self.count += 1
        if self.proves:
            proof()
        if self.lives_s:
            await self.clock.sleep(self.lives_s)
        ending = self.endings.pop(0) if len(self.endings) > 1 else self.endings[0]
        if ending is not None:
            raise ending

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[FakeClock]:
        task = asyncio.ensure_future(
            supervise(
                self,
                report=lambda state, error: self.said.append((state, error)),
                pace=PACE,
                clock=self.clock,
                where="acct/INBOX",
            )
        )
        try:
            await self.clock.settle()
            yield self.clock
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    @property
    def pauses(self) -> list[float]:
        return [seconds for seconds in self.clock.slept if seconds != self.lives_s]


@pytest.mark.parametrize(
    ("error", "state", "pause"),
    [
        (Transient("x"), AccountState.DISCONNECTED, 1.0),
        (PeerError("x"), AccountState.DISCONNECTED, 1.0),
        (AuthRefused("x"), AccountState.AUTH_FAILED, 330.0),
        (Permanent("x"), AccountState.DEGRADED, 330.0),
        (Uncertain("x"), AccountState.DEGRADED, 330.0),
        (Superseded("x"), AccountState.DEGRADED, 66.0),
        (RuntimeError("x"), AccountState.DEGRADED, 60.0),
    ],
)
async def test_each_verdict_has_its_state_and_its_pause(error: Exception, state: AccountState, pause: float) -> None:
    life = Life(error)
    async with life.supervised():
        assert [said for said, _ in life.said] == [state]
        assert life.pauses == [pytest.approx(pause)]


@pytest.mark.fault("A02")
async def test_failures_in_a_row_wait_longer_each_time_up_to_a_limit() -> None:
    life = Life(Transient("x"))
    async with life.supervised() as clock:
        await clock.advance(400)
    assert life.pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.fault("A02")
async def test_a_connection_that_failed_at_once_does_not_reset_the_back_off() -> None:
    life = Life(Transient("x"), proves=True)
    async with life.supervised() as clock:
        await clock.advance(10)
    assert life.pauses[:3] == [1, 2, 4]


@pytest.mark.fault("A02")
async def test_a_drop_after_a_healthy_life_does_not_raise_the_back_off() -> None:
    life = Life(Transient("x"), proves=True, lives_s=PROOF_S)
    async with life.supervised() as clock:
        await clock.advance(5 * (PROOF_S + 1))
    assert life.pauses[:4] == [1, 1, 1, 1]


async def test_a_life_that_never_proved_itself_is_a_failure_however_long() -> None:
    life = Life(Transient("x"), lives_s=10 * PROOF_S)
    async with life.supervised() as clock:
        await clock.advance(40 * PROOF_S)
    assert life.pauses[:3] == [1, 2, 4]


@pytest.mark.fault("A19")
async def test_what_the_server_asks_for_is_waited_and_no_longer_than_an_hour() -> None:
    for asked, waited in ((100.0, 110.0), (10 * RETRY_AFTER_LIMIT_S, 1.1 * RETRY_AFTER_LIMIT_S)):
        life = Life(Transient("throttled", retry_after_s=asked))
        async with life.supervised():
            assert life.pauses == [pytest.approx(waited)]


async def test_a_life_that_simply_ends_is_tried_again() -> None:
    life = Life(None)
    async with life.supervised() as clock:
        assert life.said[0][0] is AccountState.DISCONNECTED
        await clock.advance(1)
        assert life.count == 2


async def test_a_bug_is_counted_shown_without_its_text_and_tried_again_slowly() -> None:
    before = metrics.BUGS._value.get()
    life = Life(KeyError("subject of a private mail"))
    async with life.supervised() as clock:
        state, shown = life.said[0]
        assert state is AccountState.DEGRADED
        assert "KeyError" in str(shown)
        assert "private" not in str(shown)
        await clock.advance(59)
        assert life.count == 1
        await clock.advance(1)
        assert life.count == 2
    assert metrics.BUGS._value.get() == before + 2


async def test_of_a_group_a_bug_decides_before_a_verdict() -> None:
    nested = BaseExceptionGroup("g", [Transient("x"), ExceptionGroup("h", [AuthRefused("y")])])
    life = Life(nested)
    async with life.supervised():
        assert life.said[0][0] in (AccountState.DISCONNECTED, AccountState.AUTH_FAILED)
    life = Life(ExceptionGroup("g", [Transient("x"), ExceptionGroup("h", [ValueError("y")])]))
    async with life.supervised():
        assert "bug" in str(life.said[0][1])


async def test_a_cancelled_group_ends_the_supervision() -> None:
    life = Life(BaseExceptionGroup("g", [KeyboardInterrupt()]))
    with pytest.raises(BaseExceptionGroup):
        await supervise(life, report=lambda *_: None, pace=PACE, clock=life.clock, where="x")


async def test_jitter_spreads_the_second_half_of_a_pause() -> None:
    life = Life(Transient("x"))
    life.clock.luck = 0.0
    async with life.supervised():
        assert life.pauses == [0.5]


async def test_what_serves_all_accounts_begins_again_after_a_bug_and_ends_where_somebody_must_mend() -> None:
    clock, bugs = FakeClock(), metrics.BUGS._value.get()
    endings: list[Exception] = [ZeroDivisionError(), Transient("x"), ExceptionGroup("", [KeyError()]), Permanent("x")]

    async def work() -> None:
        raise endings.pop(0)

    task = asyncio.ensure_future(unending(work, clock=clock, where="the test"))
    await clock.advance(100)
    with pytest.raises(Permanent):
        await task
    assert (clock.slept, metrics.BUGS._value.get()) == ([SERVES_ALL_AGAIN_S] * 3, bugs + 2)


async def test_what_served_all_accounts_for_a_while_before_a_bug_is_missed_for_a_moment_only() -> None:
    clock, lives_s = FakeClock(), [SERVES_ALL_AGAIN_S + 1, 0.0]

    async def work() -> None:
        if not lives_s:
            raise Permanent("x")
        await clock.sleep(lives_s.pop(0))
        raise ZeroDivisionError

    task = asyncio.ensure_future(unending(work, clock=clock, where="the test"))
    await clock.advance(100)
    with pytest.raises(Permanent):
        await task
    assert clock.slept == [SERVES_ALL_AGAIN_S + 1, SERVES_ALL_SOON_S, 0.0, SERVES_ALL_AGAIN_S]
