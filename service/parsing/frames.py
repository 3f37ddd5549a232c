"""Pages and their events ⇄ frames on a pipe, their bytes in memory that both sides see. Pure.

A frame is four bytes of length, most significant first, and MessagePack. Bodies, events and blobs stand in a slot
(slots.py) and are named by where; what does not fit there rides in the frame.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from service.contract import Blob
from service.parsing.pages import Made, Page, Placed, PlacedBlob, PlacedMade, PlacedRead, Read, Span, Task

LENGTH: Final = struct.Struct(">I")


_encoder: Final = msgspec.msgpack.Encoder()
_tasks: Final = msgspec.msgpack.Decoder(Task)
_answers: Final = msgspec.msgpack.Decoder(list[PlacedMade])


class _Writer:
    """Puts bytes into a slot, one after another."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def span(self, data: bytes) -> Span:
        """Put it into the slot. Raises ValueError where there is no room."""
        start = self._at
        self._view[start : start + len(data)] = data
        self._at += len(data)
        return Span(start, len(data))

    def placed(self, data: bytes) -> Placed:
        """In the slot, or as it is where there is no room."""
        return self.span(data) if len(data) <= len(self._view) - self._at else data


def encode_task(slot: int, page: Page, messages: Sequence[Read], inbound: memoryview) -> bytes:
    """A frame; the bodies, which must fit, are put into the slot."""
    writer = _Writer(inbound)
    placed = [
        PlacedRead(
            message.uid,
            message.size,
            message.keywords,
            message.internal_date,
            None if message.body is None else writer.span(message.body),
            message.whole,
            message.state,
            message.previous_id,
            message.email_id,
            message.thread_id,
            message.mailboxes,
        )
        for message in messages
    ]
    return _frame(Task(slot, page, placed))


def decode_task(frame: bytes) -> Task:
    """What stands after a task's length."""
    return _tasks.decode(frame)


def read_messages(task: Task, inbound: memoryview) -> list[Read]:
    """A task's messages, copied out of its slot."""
    return [
        Read(
            message.uid,
            message.size,
            message.keywords,
            message.internal_date,
            None if message.body is None else _taken(message.body, inbound),
            message.whole,
            message.state,
            message.previous_id,
            message.email_id,
            message.thread_id,
            message.mailboxes,
        )
        for message in task.messages
    ]


def encode_answer(made: Sequence[Made], outbound: memoryview) -> bytes:
    """A frame; events and blobs are put into the slot as far as there is room."""
    writer = _Writer(outbound)
    return _frame(
        [
            PlacedMade(
                one.uid,
                writer.placed(one.payload),
                one.headers,
                [PlacedBlob(blob.id, writer.placed(blob.data)) for blob in one.blobs],
            )
            for one in made
        ]
    )


def decode_answer(frame: bytes, outbound: memoryview) -> list[Made]:
    """What stands after an answer's length, copied out of its slot."""
    return [
        Made(
            one.uid,
            _taken(one.payload, outbound),
            one.headers,
            [Blob(blob.id, _taken(blob.data, outbound)) for blob in one.blobs],
        )
        for one in _answers.decode(frame)
    ]


def _taken(placed: Placed, view: memoryview) -> bytes:
    return placed if isinstance(placed, bytes) else bytes(view[placed.start : placed.start + placed.size])


def _frame(value: Task | list[PlacedMade]) -> bytes:
    body = _encoder.encode(value)
    return LENGTH.pack(len(body)) + body
