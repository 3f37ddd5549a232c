"""Bytes of many messages at once: as nats-py would have written them, and through the buffer that it keeps."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from service.bus import Bus
from service.bus.batch import send_frames
from service.bus.frames import hpub
from service.bus.guard import check_subject
from service.bus.log import parse_headers

names = st.text("abcdefghijklmnopqrstuvwxyzABC-", min_size=1, max_size=20)
values = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=50)


@given(subject=st.text("abc.INBOX", min_size=1, max_size=40), headers=st.dictionaries(names, values), data=st.binary())
def test_lengths_say_where_headers_and_payload_end(subject: str, headers: dict[str, str], data: bytes) -> None:
    frame = hpub(subject, headers, data)
    line, _, rest = frame.partition(b"\r\n")
    verb, named, head, total = line.decode().split(" ")
    assert (verb, named) == ("HPUB", subject)
    assert parse_headers(rest[: int(head)]) == headers
    assert rest[int(head) : int(total)] == data
    assert rest[int(total) :] == b"\r\n"


async def test_a_frame_says_what_nats_py_would_have_sent(bus: Bus) -> None:
    subject = bus.subjects.event("a", "INBOX", "received")
    check_subject(subject)
    first = await bus.nc.jetstream().publish(subject, b"body", headers={"ce-id": "é", "x": "1"})
    await send_frames(bus.nc, hpub(subject, {"ce-id": "é", "x": "1"}, b"body"))
    await bus.nc.flush()
    one, two = await bus.log.get(first.seq), await bus.log.get(first.seq + 1)
    assert one is not None
    assert two is not None
    assert (one.subject, one.headers, one.payload) == (two.subject, two.headers, two.payload)


@pytest.mark.parametrize("name", ["_send_command", "_flush_pending"])
def test_nats_py_has_the_buffer_that_frames_go_through(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(Client, name))
