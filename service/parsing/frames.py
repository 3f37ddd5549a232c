"""Pages and their events ⇄ frames on a pipe: four bytes of length, most significant first, and MessagePack. Pure."""

import struct
from typing import Final

import msgspec

from service.parsing.make import Made, Page, Read

LENGTH: Final = struct.Struct(">I")


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A page to make events of."""

    page: Page
    messages: list[Read]


_encoder: Final = msgspec.msgpack.Encoder()
_tasks: Final = msgspec.msgpack.Decoder(Task)
_answers: Final = msgspec.msgpack.Decoder(list[Made])


def encode_frame(value: Task | list[Made]) -> bytes:
    """A value with its length before it."""
    frame = bytearray(LENGTH.size)
    _encoder.encode_into(value, frame, LENGTH.size)
    LENGTH.pack_into(frame, 0, len(frame) - LENGTH.size)
    return bytes(frame)


def decode_task(body: bytes) -> Task:
    """What stands after a task's length."""
    return _tasks.decode(body)


def decode_answer(body: bytes) -> list[Made]:
    """What stands after an answer's length."""
    return _answers.decode(body)
