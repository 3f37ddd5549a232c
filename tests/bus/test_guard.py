"""What NATS would not take, or would take for something else, is refused before anything is sent. Real server."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bus import Bus, MessageTooLarge, OutMessage
from service.bus.guard import SUBJECT_LIMIT_BYTES, check_subject, header_size
from service.bus.log import HEADER_LIMIT_BYTES, parse_headers
from service.errors import Permanent, Transient
from tests.bus.conftest import mailbox_filter, messages
from tests.servers.nats import NatsServer


@pytest.mark.fault("D12")
async def test_what_nats_would_not_take_is_refused_before_anything_is_sent(bus: Bus) -> None:
    fine = messages(bus, 1)[0]
    sent = bus.nc.stats["out_msgs"]
    bad = [
        OutMessage(fine.subject, b"x" * bus.max_payload, {}),
        OutMessage(fine.subject, b"", {"Mail-Cursor": "x" * HEADER_LIMIT_BYTES}),
        OutMessage(fine.subject, b"", {"Mail-Cursor": "é" * (HEADER_LIMIT_BYTES // 2)}),
    ]
    for message in bad:
        for batch in ([message], [fine, message], [message, fine]):
            with pytest.raises(MessageTooLarge):
                await bus.log.commit(batch, filter_subject=mailbox_filter(bus), fence=0)
    long = OutMessage(f"{bus.subjects.prefix}.in.a.{'x' * 5000}.received", b"", {})
    with pytest.raises(Permanent, match="no subject"):
        await bus.log.commit([long], filter_subject=mailbox_filter(bus), fence=0)
    assert bus.nc.stats["out_msgs"] == sent
    assert bus.connected


@pytest.mark.fault("D12")
async def test_what_the_check_lets_pass_lands_to_the_last_byte(bus: Bus) -> None:
    subject, fence = messages(bus, 1)[0].subject, len(mailbox_filter(bus))
    widest = OutMessage(subject, b"", {"Mail-Cursor": "x" * (HEADER_LIMIT_BYTES - 500 - fence)})
    largest = OutMessage(subject, b"x" * (bus.max_payload - 400 - fence), {})
    seq = await bus.log.commit([widest, largest], filter_subject=mailbox_filter(bus), fence=0)
    assert await bus.log.commit([largest], filter_subject=mailbox_filter(bus), fence=seq) == 3


@pytest.mark.fault("D12")
async def test_a_limit_that_was_lowered_at_run_time_is_seen(own_nats: NatsServer, own_bus: Bus) -> None:
    large = [OutMessage(messages(own_bus, 1)[0].subject, b"x" * 200_000, {})]
    seq = await own_bus.log.commit(large, filter_subject=mailbox_filter(own_bus), fence=0)
    own_nats.config["max_payload"] = 100_000
    await own_nats.restart()
    async with asyncio.timeout(20):
        while True:
            try:
                await own_bus.log.tail(mailbox_filter(own_bus))
                break
            except Transient:
                continue
    with pytest.raises(MessageTooLarge):
        await own_bus.log.commit(large, filter_subject=mailbox_filter(own_bus), fence=seq)


@pytest.mark.fault("G07", "G11")
@pytest.mark.parametrize(
    "subject",
    ["", "a b", "a..b", ".a", "a.", "a.*", "a.>", "a\r\nPUB x 0\r\n", "a\x00", "a\tb", "x" * 3000, "a.\ud800"],
)
async def test_a_subject_that_is_none_never_reaches_the_wire(bus: Bus, subject: str) -> None:
    for call in (
        bus.log.commit([OutMessage(subject, b"", {})], filter_subject=mailbox_filter(bus), fence=0),
        bus.publish(subject, b""),
    ):
        with pytest.raises(Permanent):
            await call


@pytest.mark.fault("G07")
@pytest.mark.parametrize("value", ["a\r\nNats-Rollup: all", "a\n", "\x00", "\ud800"])
async def test_a_header_value_that_is_no_line_never_reaches_the_wire(bus: Bus, value: str) -> None:
    message = OutMessage(messages(bus, 1)[0].subject, b"", {"ce-subject": value})
    with pytest.raises(Permanent):
        await bus.log.commit([message], filter_subject=mailbox_filter(bus), fence=0)
    with pytest.raises(Permanent):
        await bus.publish(bus.subjects.out("a"), b"", {"X": value})
    with pytest.raises(Permanent):
        await bus.publish(bus.subjects.out("a"), b"", {f"X: y\r\n{value}": "1"})


@pytest.mark.fault("G07")
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_passes_the_gate_is_one_line(subject: str, value: str) -> None:
    try:
        check_subject(subject)
    except Permanent:
        pass
    else:
        assert not set(subject) & set(" \r\n\t\x00*>")
        assert len(subject.encode()) <= SUBJECT_LIMIT_BYTES
    try:
        header_size({"ce-subject": value})
    except Permanent:
        pass
    else:
        block = f"NATS/1.0\r\nce-subject: {value}\r\n\r\n".encode()
        assert parse_headers(block) == {"ce-subject": value.strip()}
