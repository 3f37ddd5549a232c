"""`python -m service.parsing FD`: pages on standard input → events on standard output, until the parent is gone.

FD is the memory that both sides see (slots.py). Started by ingest, which may have it killed at any moment: it keeps
nothing.
"""

import gc
import sys
from typing import BinaryIO, Final

from service.parsing.frames import LENGTH, decode_task, encode_answer, read_messages
from service.parsing.make import make
from service.parsing.slots import Slots

# Nothing here goes in circles but an error now and then: looking for them every 700 objects takes a tenth of the time.
GARBAGE_EVERY_OBJECTS: Final = 50_000


def serve(source: BinaryIO, target: BinaryIO, slots: Slots) -> None:
    """Say that all is there (a frame of length 0), then answer every page in its turn."""
    _write(target, LENGTH.pack(0))
    while (frame := _read_frame(source)) is not None:
        task = decode_task(frame)
        messages = read_messages(task, slots.inbound(task.slot))
        made = [make(task.page, message) for message in messages]
        _write(target, encode_answer(made, slots.outbound(task.slot)))


def _write(target: BinaryIO, frame: bytes) -> None:
    target.write(frame)
    target.flush()


def _read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = source.read(length)
    return body if len(body) == length else None


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY_OBJECTS)
    serve(sys.stdin.buffer, sys.stdout.buffer, Slots(int(sys.argv[1])))
