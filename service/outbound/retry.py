"""What the relay said → what becomes of each recipient and of the request. Pure: time and chance are handed in.

Used by ways.py. RFC 5321 4.5.4.1: retry what was put off, with growing pauses, until it is too old; 5yz is final.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

import msgspec

from service.clock import backoff_s
from service.contract import Problem, State
from service.outbound.options import OutboundOptions

# So long before it expires a request is tried once more, where its pause would be longer: a relay that came back
# meanwhile gets its chance.
LAST_TRY: Final = timedelta(seconds=30)
EXPIRED: Final = Problem("expiresAt", "expired before the relay was known to have taken it")
NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


class Verdict(StrEnum):
    """What a reply, or the lack of one, means for a recipient."""

    ACCEPTED = "accepted"
    PUT_OFF = "put_off"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # the dot was sent, its reply never came
    OVERFULL = "overfull"  # one too many for this transaction, in which others were accepted


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient's verdict and the words it came with. `of_recipient`: they are about him, not about who sends."""

    verdict: Verdict
    reply: str
    of_recipient: bool = False


class Phase(StrEnum):
    """Where a request stands between attempts."""

    INTENT = "intent"  # the dot may be out
    WAITING = "waiting"  # a schedule has it
    HELD = "held"  # a person decides, or its expiry
    FINAL = "final"


class Decision(msgspec.Struct, frozen=True):
    """`states`: per state, the recipients it is about with their reply. `pending` are tried again, `held` are not.
    `problem`: why whoever failed did, where no relay said so.

    `at_once`: those of `pending` for whom there was no room; they are tried next, and without the others.
    `goes_on`: some of `pending` were not tried yet, and are before `next_at`.
    """

    phase: Phase
    states: dict[State, dict[str, str]]
    pending: dict[str, str]
    held: list[str]
    next_at: datetime | None
    problem: Problem | None = None
    at_once: tuple[str, ...] = ()
    goes_on: bool = False


def decide(
    said: Mapping[str, Said],
    *,
    held: Sequence[str],
    attempt: int,
    now: datetime,
    expires_at: datetime,
    options: OutboundOptions,
    chance: float,
    others: Mapping[str, str] = NOBODY,
) -> Decision:
    """After an attempt. `held` are recipients that earlier attempts left on hold; `others` wait without a word.

    `attempt`: of those that made somebody wait; one that was too small for all makes no pause longer.
    """
    states: dict[State, dict[str, str]] = {}
    pending: dict[str, str] = dict(others)
    now_held = list(held)
    at_once: list[str] = []
    for recipient, one in said.items():
        match one.verdict:
            case Verdict.ACCEPTED:
                state = State.SENT
            case Verdict.REFUSED:
                state = State.FAILED
            case Verdict.PUT_OFF:
                state = State.DEFERRED
                pending[recipient] = one.reply
            case Verdict.UNKNOWN:
                state = State.UNCERTAIN
                if options.uncertain == "retry":
                    pending[recipient] = one.reply
                else:
                    now_held.append(recipient)
            case Verdict.OVERFULL:
                # RFC 5321 4.5.3.1.10: no failure of the recipient. Somebody was accepted, so it comes to an end.
                pending[recipient] = one.reply
                at_once.append(recipient)
                continue
            case _:
                assert_never(one.verdict)
        states.setdefault(state, {})[recipient] = one.reply
    pause = 0.0 if at_once else _pause_s(attempt, options, chance)
    next_at = _before_expiry(now, now + timedelta(seconds=pause), expires_at)
    return _decision(states, pending, now_held, next_at if pending else expires_at, tuple(at_once))


def _before_expiry(now: datetime, at: datetime, expires_at: datetime) -> datetime:
    """When the next try is, or at `expires_at` the end: nothing is tried then any more."""
    last = expires_at - LAST_TRY
    if at <= last:
        return at
    return last if last - now >= LAST_TRY else min(at, max(expires_at, now))


def _pause_s(attempt: int, options: OutboundOptions, chance: float) -> float:
    return backoff_s(
        attempt, first_s=options.retry_first_s, factor=options.retry_factor, max_s=options.retry_max_s, chance=chance
    )


def found(
    taken: Mapping[str, Said],
    pending: Mapping[str, str],
    held: Sequence[str],
    *,
    next_at: datetime,
    expires_at: datetime,
) -> Decision:
    """Between attempts: some of those that wait were found to have the mail."""
    left = {who: reply for who, reply in pending.items() if who not in taken}
    states = {State.SENT: {who: one.reply for who, one in taken.items()}}
    return _decision(states, left, [who for who in held if who not in taken], next_at if left else expires_at)


def expire(pending: Mapping[str, str], held: Sequence[str]) -> Decision:
    """At `expiresAt`: whoever waits or is held has failed, with the last reply that was heard."""
    failed = dict(pending) | {recipient: "" for recipient in held if recipient not in pending}
    return Decision(Phase.FINAL, {State.FAILED: failed}, {}, [], None, problem=EXPIRED)


def break_off(
    unsure: Iterable[str], refused: Mapping[str, Said], others: Mapping[str, str], problem: Problem
) -> Decision:
    """Nobody goes on with an intent: whose dot may be out is in doubt, and with whoever else waits has failed."""
    doubted = {who: "" for who in unsure if who not in refused}
    failed = doubted | {who: one.reply for who, one in refused.items()} | dict(others)
    states = {state: of for state, of in ((State.UNCERTAIN, doubted), (State.FAILED, failed)) if of}
    return Decision(Phase.FINAL, states, {}, [], None, problem=problem)


def _decision(
    states: dict[State, dict[str, str]],
    pending: dict[str, str],
    held: list[str],
    next_at: datetime,
    at_once: tuple[str, ...] = (),
) -> Decision:
    if pending:
        return Decision(Phase.WAITING, states, pending, held, next_at, at_once=at_once)
    if held:
        return Decision(Phase.HELD, states, {}, held, next_at)
    return Decision(Phase.FINAL, states, {}, [], None)
