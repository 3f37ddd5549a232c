"""A message in the hands of two processes: the late one says nothing of it to NATS, which takes it for the other."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from service.bus import Bus, Job
from service.clock import SystemClock
from service.contract import encode, request_key
from service.outbound.evidence import Evidence
from service.outbound.places import Place
from service.outbound.retry import Phase, Said, Verdict
from service.outbound.sends import KEY_HEADER, SendRecord, new_record
from service.outbound.settle import ATTEMPT_HEADER, changed
from service.outbound.suspects import Suspects, Suspicion
from tests.outbound.conftest import Post, deliveries, idle_sender
from tests.outbound.test_suspects import fetched, given_back

KEY = request_key("a", "r")
A = "a@x.example"


class Words:
    """What NATS hears of a job."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def put(self, frame: bytes) -> None:
        self.said.append(frame.split(b"\r\n")[1].split()[0])

    def of(self, job: Job, **changes: object) -> Job:
        return msgspec.structs.replace(job, nc=self, **changes)


async def handled(bus: Bus, job: Job) -> None:
    await idle_sender(bus)._deliverer.handle(job, Place(asyncio.Semaphore(1), deliveries()))


@pytest.mark.fault("E02")
@pytest.mark.parametrize(("source", "said"), [(None, []), ("another 1", [b"-NAK"])])
async def test_a_message_is_given_back_only_where_another_one_has_its_request(
    bus: Bus, post: Post, source: str | None, said: list[bytes]
) -> None:
    await post.request("r")
    words, job = Words(), await fetched(bus)
    own = new_record("r", job, job.stored_at)
    under_way = changed(own, source=source or own.source, owner="another", attempt=1)
    await bus.key_value(bus.subjects.sends).create(KEY, encode(under_way))
    await handled(bus, words.of(job))
    assert words.said == said


@pytest.mark.fault("E02")
@pytest.mark.parametrize(("phase", "attempt", "said"), [(Phase.INTENT, 2, []), (Phase.WAITING, 1, [b"-NAK"])])
async def test_of_a_request_that_is_due_the_one_that_began_with_the_attempt_keeps_it(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch, phase: Phase, attempt: int, said: list[bytes]
) -> None:
    """Or its record is written for another reason, and nobody has it."""
    await post.request("r")
    words, job = Words(), await fetched(bus)
    sends, expires_at = bus.key_value(bus.subjects.sends), SystemClock().now() + timedelta(hours=1)
    record = changed(new_record("r", job, expires_at), phase=Phase.WAITING, attempt=1, pending={A: ""})
    await sends.create(KEY, encode(record))

    async def between(_self: Evidence, record: SendRecord) -> dict[str, Said]:
        _, revision = await idle_sender(bus)._deliverer._sends.get(KEY)
        await sends.update(KEY, encode(changed(record, owner="another", phase=phase, attempt=attempt)), revision)
        return {A: Said(Verdict.ACCEPTED, "250 2.0.0 it was in Sent")}

    monkeypatch.setattr(Evidence, "of_waiting", between)
    headers = {KEY_HEADER: KEY, ATTEMPT_HEADER: "2"}
    await handled(bus, words.of(job, subject=bus.subjects.due("a"), headers=headers))
    assert words.said == said


@pytest.mark.fault("E02")
async def test_of_two_that_begin_a_message_again_the_later_one_leaves_it_to_the_other(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post.request("r")
    await given_back(bus)
    words, job = Words(), await fetched(bus)
    look = Suspects.look

    async def overtaken(self: Suspects, job: Job) -> Suspicion:
        found = await look(self, job)
        await Suspects(bus.key_value(bus.subjects.sends), writer="other/1", lives=self._lives).begin(job, found)
        return found

    monkeypatch.setattr(Suspects, "look", overtaken)
    await handled(bus, words.of(job))
    assert job.delivered > 1
    assert not words.said
