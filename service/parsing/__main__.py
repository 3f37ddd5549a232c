"""`python -m service.parsing`: pages on standard input → events on standard output, until the parent is gone.

Started by ingest, which may have it killed at any moment: it keeps nothing.
"""

import sys
from typing import BinaryIO

from service.parsing.frames import LENGTH, decode_task, encode_frame
from service.parsing.make import Made, make


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Say that all is there (a frame without events), then answer every page in its turn."""
    _answer(target, [])
    while (body := _read_frame(source)) is not None:
        task = decode_task(body)
        _answer(target, [make(task.page, message) for message in task.messages])


def _answer(target: BinaryIO, made: list[Made]) -> None:
    target.write(encode_frame(made))
    target.flush()


def _read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = source.read(length)
    return body if len(body) == length else None


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
