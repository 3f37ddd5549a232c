"""`held`, `cancel`, `release` over the bus, on an account whose sender takes nothing."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from service.bus import Bus
from service.clock import SystemClock
from service.contract import encode, request_key
from tests.commands.conftest import code, desk
from tests.servers.dovecot import Dovecot

NOW = SystemClock().now()


@pytest.fixture
async def served(bus: Bus, prefix: str) -> AsyncIterator[Bus]:
    async with desk(bus, Dovecot(Path()), prefix) as one:
        yield one.bus


async def ask(bus: Bus, verb: str, body: object, account: str = "support") -> Msg:
    return await bus.nc.request(bus.subjects.cmd(account, verb), json.dumps(body).encode(), timeout=5)


async def hold(bus: Bus, id: str, recipients: list[str]) -> None:
    """A request on hold, as the sender leaves it."""
    key, expires = request_key("support", id), NOW + timedelta(days=1)
    record = {
        "id": id, "source": "x 1", "owner": "o", "phase": "held", "attempt": 1, "message_id": "m@x", "date": NOW,
        "expires_at": expires, "held": recipients, "next_at": expires, "taken": recipients,
    }  # fmt: skip
    await bus.key_value(bus.subjects.sends).create(key, encode(record))
    subjects = bus.subjects
    await bus.queue(subjects.stream_later).schedule(
        subjects.later("support", key), subjects.due("support"), expires, b"", {}
    )


async def test_what_is_held_is_listed_released_and_cancelled(served: Bus) -> None:
    assert json.loads((await ask(served, "held", {})).data) == {"list": [], "more": False}
    await hold(served, "r1", ["a@x.example"])
    await hold(served, "r2", ["b@x.example"])
    found = json.loads((await ask(served, "held", {})).data)["list"]
    assert {one["id"]: one["recipients"] for one in found} == {"r1": ["a@x.example"], "r2": ["b@x.example"]}
    released = json.loads((await ask(served, "release", {"id": "r1"})).data)
    assert released == {"undoStatus": "pending", "cancelled": []}
    cancelled = json.loads((await ask(served, "cancel", {"id": "r2"})).data)
    assert cancelled == {"undoStatus": "final", "cancelled": ["b@x.example"]}
    assert json.loads((await ask(served, "held", {})).data)["list"] == []


async def test_a_request_that_is_still_queued_is_cancelled(served: Bus) -> None:
    await ask(served, "send", {"id": "r", "to": [{"email": "a@x.example"}], "text": "x"})
    answer = await ask(served, "cancel", {"id": "r"})
    assert json.loads(answer.data) == {"undoStatus": "canceled", "cancelled": []}


async def test_what_an_answer_has_no_room_for_is_in_the_next_ones(served: Bus) -> None:
    many = [f"{'x' * 60}{n}@{'y' * 150}.example" for n in range(60_000 // 220)]
    for n in range(10):
        await hold(served, f"r{n}", many)
    pages, asked = list[list[str]](), dict[str, str]()
    while True:
        answer = json.loads((await ask(served, "held", asked)).data)
        pages.append([one["id"] for one in answer["list"]])
        if not answer["more"]:
            break
        asked = {"after": answer["next"]}
    assert len(pages) > 1
    assert sorted(id for page in pages for id in page) == [f"r{n}" for n in range(10)]


@pytest.mark.parametrize("verb", ["cancel", "release"])
async def test_an_unknown_id_is_404(served: Bus, verb: str) -> None:
    assert code(await ask(served, verb, {"id": "nothing"})) == "404"


@pytest.mark.parametrize(
    ("verb", "body"), [("held", {"x": 1}), ("held", {"after": "r"}), ("cancel", {}), ("release", {"id": 1})]
)
async def test_a_wrong_body_is_400(served: Bus, verb: str, body: object) -> None:
    assert code(await ask(served, verb, body)) == "400"


@pytest.mark.parametrize("verb", ["held", "cancel", "release"])
async def test_an_account_that_only_reads_has_no_requests(served: Bus, verb: str) -> None:
    assert code(await ask(served, verb, {"id": "x"} if verb != "held" else {}, account="reader")) == "404"
