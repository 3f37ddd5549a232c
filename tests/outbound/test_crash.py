"""The sender ended by force at each of its steps, then started again: nothing lost, nothing doubled in silence."""

import asyncio
import os
import sys
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest

from service.bus import Bus
from service.observe.steps import STOP_EXIT_CODE
from tests.outbound.conftest import Post, soon
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

HERE = Path(__file__).parent
LIMIT_S = 40.0


async def run_child(
    url: str, prefix: str, port: int, *, stop_at: int = 0, log: Path | None = None, uncertain: str = "retry"
) -> int:
    environment = os.environ | {"MAILBUS_STOP_AT": str(stop_at)} | ({"MAILBUS_STEPS_LOG": str(log)} if log else {})
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.outbound.child",
        url,
        prefix,
        str(port),
        uncertain,
        env=environment,
        cwd=HERE.parents[1],
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            return await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def ids_of(relay: ScriptedRelay, recipient: str) -> list[str]:
    return [message_from_bytes(mail.content)["Message-ID"] for mail in relay.messages if recipient in mail.rcpt_to]


def check(post: Post, relay: ScriptedRelay, where: str) -> None:
    """Each recipient has one final state; a mail that came twice was called uncertain, and kept its Message-ID."""
    unique = {event.id: event for event in post.events}
    final = Counter(
        (recipient, event.state)
        for event in unique.values()
        for recipient in event.body.delivery_status
        if event.state in ("sent", "failed")
    )
    assert final == {("a@x.example", "sent"): 1, ("b@x.example", "sent"): 1, ("c@x.example", "failed"): 1}, where
    assert len(post.events) == len(unique), where
    uncertain = Counter(
        recipient for event in unique.values() if event.state == "uncertain" for recipient in event.body.delivery_status
    )
    for recipient in ("a@x.example", "b@x.example"):
        got = ids_of(relay, recipient)
        assert 1 <= len(got) <= 1 + uncertain[recipient], where
        assert len(set(got)) == 1, where
    assert not ids_of(relay, "c@x.example"), where


def fresh(relay: ScriptedRelay) -> None:
    relay.messages.clear()
    # b is put off at the first envelope that reaches the dot and taken at the next; c is never taken.
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy", "250 OK"], "c@x.example": ["550 5.1.1 unknown"]}


async def one_run(nats: NatsServer, bus: Bus, relay: ScriptedRelay, stop_at: int, log: Path | None = None) -> int:
    """A request, a child that is ended at a step, a child that goes on; all is checked. Gives the first's end."""
    fresh(relay)
    post = Post(bus)
    await post.watch()
    await post.request(f"r{stop_at}", to=[{"email": f"{who}@x.example"} for who in "abc"])
    ended = await run_child(nats.url, bus.subjects.prefix, relay.port, stop_at=stop_at, log=log)
    if ended == STOP_EXIT_CODE:
        assert await run_child(nats.url, bus.subjects.prefix, relay.port) == 0
    await post.empty()
    post.events = [event for event in post.events if event.body.id == f"r{stop_at}"]
    check(post, relay, f"stopped at step {stop_at}")
    return ended


@pytest.mark.fault("E02", "E04")
@pytest.mark.timeout(600)
async def test_killed_at_each_step_no_mail_is_lost_or_doubled_in_silence(
    nats_server: NatsServer, bus: Bus, relay: ScriptedRelay, tmp_path: Path
) -> None:
    log = tmp_path / "steps"
    assert await one_run(nats_server, bus, relay, 0, log) == 0
    steps = log.read_text().split()
    assert {
        "intent.done",
        "smtp.dot.sent",
        "outcome.done",
        "status.done",
        "schedule.done",
        "outbox.done",
        "ack.done",
    } <= set(steps)
    for n in range(1, len(steps) + 1):
        assert await one_run(nats_server, bus, relay, n) in (STOP_EXIT_CODE, 0)


@pytest.mark.fault("E02")
@pytest.mark.timeout(300)
async def test_killed_around_the_dot_a_mail_on_hold_is_never_sent_again(
    nats_server: NatsServer, bus: Bus, relay: ScriptedRelay, tmp_path: Path
) -> None:
    log, where = tmp_path / "steps", (nats_server.url, bus.subjects.prefix, relay.port)
    post = Post(bus)
    await post.watch()
    await post.request("clean")
    assert await run_child(*where, log=log, uncertain="hold") == 0
    steps = log.read_text().split()
    for name in ("intent.done", "smtp.dot", "smtp.dot.sent", "replies", "outcome.before"):
        relay.messages.clear()
        await post.request(name, expiresAt=soon(6))
        assert await run_child(*where, stop_at=steps.index(name) + 1, uncertain="hold") == STOP_EXIT_CODE
        assert await run_child(*where, uncertain="hold") == 0
        await post.empty()
        assert [event.state for event in post.events if event.body.id == name] == ["uncertain", "failed"], name
        assert len(relay.messages) <= 1, name


@pytest.mark.fault("E02")
async def test_a_process_that_sleeps_past_ack_wait_after_the_dot_does_not_hide_the_second_mail(
    nats_server: NatsServer, bus: Bus, relay: ScriptedRelay, post: Post
) -> None:
    """SIGSTOP between dot and reply: another process finds the intent, says `uncertain` first, then sends again."""
    import signal

    relay.script.hold = asyncio.Event()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.outbound.child", nats_server.url, bus.subjects.prefix, str(relay.port), "retry",
        cwd=HERE.parents[1],
    )  # fmt: skip
    try:
        await post.request("r")
        second = None
        # The child leaves at once while nothing is queued: it may have looked before the request was there.
        while not relay.messages:
            if child.returncode is not None:
                child = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.outbound.child", nats_server.url, bus.subjects.prefix,
                    str(relay.port), "retry", cwd=HERE.parents[1],
                )  # fmt: skip
            await asyncio.sleep(0.05)
        child.send_signal(signal.SIGSTOP)
        relay.script.hold.set()
        relay.script.hold = None
        second = await run_child(nats_server.url, bus.subjects.prefix, relay.port)
        assert second == 0
        child.send_signal(signal.SIGCONT)
        async with asyncio.timeout(LIMIT_S):
            await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    await post.empty()
    assert [event.state for event in post.events] == ["uncertain", "sent"]
    first, again = relay.messages
    assert first.content == again.content
