"""Bytes of many messages at once: as nats-py would have written them, and through the buffer that it keeps."""

import inspect

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from service.bus import Bus
from service.bus.frames import APART_FROM_BYTES, OutMessage, asking, batched, hpub
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


payloads = st.binary(max_size=50) | st.integers(APART_FROM_BYTES - 1, APART_FROM_BYTES + 1).map(bytes)
messages = st.lists(st.builds(OutMessage, st.just("a.b"), payloads, st.dictionaries(names, values)), max_size=6)


@given(messages)
def test_pieces_are_the_frames_of_all_messages_one_behind_another(many: list[OutMessage]) -> None:
    asked = [hpub(one.subject, one.headers, one.payload, f"in.{at}") for at, one in enumerate(many, 7)]
    assert b"".join(asking(many, "in", 7)) == b"".join(asked)
    marks = [{"Nats-Batch-Id": "b", "Nats-Batch-Sequence": str(at)} for at in range(2, len(many) + 2)]
    of_batch = [hpub(one.subject, one.headers | mark, one.payload) for one, mark in zip(many, marks, strict=True)]
    assert b"".join(batched(many, "b", 2)) == b"".join(of_batch)


@given(messages)
def test_a_large_payload_is_a_piece_as_it_is(many: list[OutMessage]) -> None:
    pieces = batched(many, "b", 1)
    large = [one.payload for one in many if len(one.payload) >= APART_FROM_BYTES]
    assert [piece for piece in pieces if any(piece is one for one in large)] == large


async def test_a_frame_says_what_nats_py_would_have_sent(bus: Bus) -> None:
    subject = bus.subjects.event("a", "INBOX", "received")
    check_subject(subject)
    first = await bus.nc.jetstream().publish(subject, b"body", headers={"ce-id": "é", "x": "1"})
    await bus.nc.send([hpub(subject, {"ce-id": "é", "x": "1"}, b"body")])
    await bus.nc.flush()
    one, two = await bus.log.get(first.seq), await bus.log.get(first.seq + 1)
    assert one is not None
    assert two is not None
    assert (one.subject, one.headers, one.payload) == (two.subject, two.headers, two.payload)


def test_nats_py_has_the_buffer_that_frames_go_through() -> None:
    assert inspect.iscoroutinefunction(Client._flush_pending)
    client = Client()
    assert (client._pending, client._pending_data_size) == ([], 0)
