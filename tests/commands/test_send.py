"""`mail.cmd.<account>.send`: checked at once, published, answered with the id."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from service.bus import Bus
from service.clock import SystemClock
from tests.commands.conftest import code, desk
from tests.servers.dovecot import Dovecot

REQUEST = {"to": [{"email": "a@x.example"}], "text": "hi"}


@pytest.fixture
async def served(bus: Bus, prefix: str) -> AsyncIterator[Bus]:
    async with desk(bus, Dovecot(Path()), prefix) as one:
        yield one.bus


async def ask(bus: Bus, body: object, account: str = "support", headers: dict[str, str] | None = None) -> Msg:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await bus.nc.request(bus.subjects.cmd(account, "send"), payload, timeout=5, headers=headers)


async def queued(bus: Bus) -> list[dict[str, object]]:
    found = []
    puller = await bus.queue(bus.subjects.stream_out).puller("look", bus.subjects.out("support"))
    while jobs := await puller.fetch(10):
        for job in jobs:
            assert "Nats-Msg-Id" not in job.headers
            found.append(json.loads(job.payload))
            await job.ack()
    return found


async def test_a_right_request_is_queued_and_answered_with_its_id(served: Bus) -> None:
    answer = await ask(served, REQUEST | {"id": "r1"})
    assert json.loads(answer.data) == {"id": "r1"}
    assert [one["id"] for one in await queued(served)] == ["r1"]


async def test_an_urgent_request_is_put_before_the_others(served: Bus) -> None:
    await ask(served, REQUEST | {"id": "r1", "priority": "high"})
    await ask(served, REQUEST | {"id": "r2", "priority": "normal"})
    assert await served.pending(served.subjects.stream_out, served.subjects.out_urgent("support")) == 1
    assert [one["id"] for one in await queued(served)] == ["r2"]
    assert code(await ask(served, REQUEST | {"priority": "low"})) == "400"


async def test_a_request_without_an_id_is_given_one(served: Bus) -> None:
    made = json.loads((await ask(served, REQUEST)).data)["id"]
    named = json.loads((await ask(served, REQUEST, headers={"Nats-Msg-Id": "mine"})).data)["id"]
    assert len(made) == 32
    assert named == "mine"
    assert [one["id"] for one in await queued(served)] == [made, "mine"]
    # What the service publishes is itself a right request.
    answer = await ask(served, (await _republished(served)))
    assert not code(answer)


async def _republished(bus: Bus) -> dict[str, object]:
    await ask(bus, REQUEST)
    return (await queued(bus))[0]


async def test_a_wrong_request_is_400_with_every_problem(served: Bus) -> None:
    answer = await ask(served, {"to": [{"email": "nobody"}], "subject": "a\nb", "text": "x"})
    assert code(answer) == "400"
    problems = json.loads(answer.data)["problems"]
    assert {one["field"] for one in problems} == {"to[0].email", "subject"}
    assert all(one["message"] for one in problems)
    assert await queued(served) == []


async def test_of_a_request_that_is_wrong_all_over_so_much_is_said_as_an_answer_holds(served: Bus) -> None:
    answer = await ask(served, REQUEST | {"headers": {f"X {n}": "\n" * 9 for n in range(20_000)}, "x" * 5000: 1})
    assert code(answer) == "400"
    assert len(json.loads(answer.data)["problems"]) == 50
    long = await ask(served, REQUEST | {"x" * 5000: 1})
    assert code(long) == "400"
    assert len(json.loads(long.data)["problems"][0]["field"]) == 200


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"[]", b"\xff", b'{"nope": 1}'])
async def test_what_is_no_request_is_400(served: Bus, payload: bytes) -> None:
    assert code(await ask(served, payload)) == "400"


async def test_an_unknown_account_is_404(served: Bus) -> None:
    assert code(await ask(served, REQUEST, account="nobody")) == "404"


async def test_an_account_that_only_reads_sends_nothing(served: Bus) -> None:
    assert code(await ask(served, REQUEST, account="reader")) == "404"


async def test_a_request_that_nats_cannot_take_is_400(served: Bus) -> None:
    big = REQUEST | {"text": "x" * (served.max_payload - 300)}
    assert code(await ask(served, big)) == "400"


async def test_a_stream_that_refuses_is_503(served: Bus) -> None:
    await served.nc.jetstream().delete_stream(served.subjects.stream_out)
    assert code(await ask(served, REQUEST)) == "503"


async def test_many_at_once(served: Bus) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(served, REQUEST | {"id": f"r{n}"})) for n in range(200)]
    assert [json.loads(task.result().data)["id"] for task in tasks] == [f"r{n}" for n in range(200)]


@pytest.mark.fault("E14")
async def test_what_would_be_refused_later_is_refused_at_once(served: Bus) -> None:
    late = await ask(served, REQUEST | {"expiresAt": "2100-01-01T00:00:00Z"})
    assert code(late) == "400"
    assert json.loads(late.data)["problems"][0]["field"] == "expiresAt"
    raw = await ask(served, {"to": REQUEST["to"], "rawBlobId": f"202611-{'0' * 64}"})
    assert (code(raw), json.loads(raw.data)["problems"][0]["field"]) == ("400", "rawBlobId")
    missing = await ask(served, REQUEST | {"attachments": [{"blobId": f"202611-{'0' * 64}", "name": "a"}]})
    assert code(missing) == "400"
    assert "no such blob" in json.loads(missing.data)["problems"][0]["message"]
    nothing = await served.blobs().put(b"", now=SystemClock().now())
    empty = await ask(served, {"to": REQUEST["to"], "rawBlobId": nothing})
    assert code(empty) == "400"
    assert json.loads(empty.data)["problems"][0]["field"] == "rawBlobId"
    assert await queued(served) == []
