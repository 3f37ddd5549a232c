"""Who asks for a request again while it is in hand: nobody's answer is lost, and no request is."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.bus import Job
from service.outbound.inhand import EARLY_LIMIT, LATE_LIMIT, InHand
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Wire:
    """What NATS hears of jobs, and what is said."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.record: SendRecord | None = None
        self.fails = False

    def put(self, frame: bytes) -> None:
        _, reply, word = frame.split(b" ", 2)[0], frame.split()[1], frame.split(b"\r\n")[1]
        self.heard.append(f"{reply.decode()} {word[:4].decode()}")

    async def get(self, key: str) -> tuple[SendRecord | None, int]:
        return self.record, 1

    async def say(self, record: SendRecord, *, asked_again: int) -> None:
        self.heard.append(f"say {asked_again}")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def in_hand(wire: Wire) -> InHand:
    return InHand(wire, wire)  # type: ignore[arg-type]  # what it asks of both


def job(wire: Wire, seq: int, *, delivered: int = 1) -> Job:
    return Job(wire, f"{seq}", "mail.out.a", b"", {}, seq, NOW, delivered)  # type: ignore[arg-type]


def record(phase: Phase, **more: Any) -> SendRecord:
    fields: dict[str, Any] = {
        "id": "r", "source": "mail.out.a 7", "owner": "", "phase": phase, "attempt": 1, "message_id": "", "date": NOW,
        "expires_at": NOW,
    } | more  # fmt: skip
    return SendRecord(**fields)


async def test_who_asks_before_anything_was_said_is_let_go_at_once_and_answered_in_the_end(
    wire: Wire, in_hand: InHand
) -> None:
    with in_hand.having("k", job(wire, 7)) as asked:
        await in_hand.again("k", job(wire, 8), due=False)
        wire.record = record(Phase.INTENT)
        await in_hand.again("k", job(wire, 9), due=False)
    wire.record = record(Phase.FINAL)
    await in_hand.answer("k", asked)
    assert wire.heard == ["8 +ACK", "9 +ACK", "say 8", "say 9"]


@pytest.mark.parametrize(
    "said",
    [record(Phase.FINAL), record(Phase.WAITING), record(Phase.INTENT, attempt=2), record(Phase.INTENT, split=True)],
)
async def test_who_asks_after_something_was_said_is_let_go_behind_his_answer(
    wire: Wire, in_hand: InHand, said: SendRecord
) -> None:
    wire.record = said
    with in_hand.having("k", job(wire, 7)) as asked:
        await in_hand.again("k", job(wire, 8), due=False)
        assert not wire.heard
    await in_hand.answer("k", asked)
    assert wire.heard == ["say 8", "8 +ACK"]


async def test_the_message_in_hand_is_not_taken_for_another_when_nats_forgot_its_delivery(
    wire: Wire, in_hand: InHand
) -> None:
    with in_hand.having("k", job(wire, 7)):
        await in_hand.again("k", job(wire, 7), due=False)
    assert wire.heard == ["7 -NAK"]


@pytest.mark.parametrize("said", [record(Phase.INTENT), record(Phase.WAITING)])
async def test_the_message_that_an_ended_process_began_with_is_kept_when_nats_forgot_its_delivery(
    wire: Wire, in_hand: InHand, said: SendRecord
) -> None:
    """By it alone is found out what became of the attempt, or what follows from its outcome done."""
    wire.record = said
    with in_hand.having("k", job(wire, 8)) as asked:
        await in_hand.again("k", job(wire, 7), due=False)
    await in_hand.answer("k", asked)
    assert wire.heard == ["7 -NAK"]


@pytest.mark.parametrize(("delivered", "due"), [(2, False), (1, True)])
async def test_what_another_process_may_have_begun_with_is_given_back(
    wire: Wire, in_hand: InHand, delivered: int, due: bool
) -> None:
    with in_hand.having("k", job(wire, 7)):
        await in_hand.again("k", job(wire, 8, delivered=delivered), due=due)
    assert wire.heard == ["8 -NAK"]


@pytest.mark.parametrize(("phase", "limit"), [(Phase.INTENT, EARLY_LIMIT), (Phase.FINAL, LATE_LIMIT)])
async def test_who_asks_beyond_a_limit_is_given_back(wire: Wire, in_hand: InHand, phase: Phase, limit: int) -> None:
    wire.record = record(phase)
    with in_hand.having("k", job(wire, 7)):
        for seq in range(100, 100 + limit):
            await in_hand.again("k", job(wire, seq), due=False)
        await in_hand.again("k", job(wire, 8), due=False)
    assert wire.heard[-1] == "8 -NAK"


async def test_where_the_request_goes_back_to_the_queue_so_does_who_asked(wire: Wire, in_hand: InHand) -> None:
    wire.record = record(Phase.FINAL)
    with in_hand.having("k", job(wire, 7)) as asked:
        await in_hand.again("k", job(wire, 8), due=False)
    wire.record = None
    await in_hand.answer("k", asked)
    assert wire.heard == ["8 -NAK"]
