"""Messages as they were read → events and blobs, and a program that does it in a process of its own.

make.py turns one message into its event, purely; pages.py says what goes in and comes out; slots.py is the memory
that pages cross in, frames.py what the pipe says of them; `python -m service.parsing` answers them. It imports little,
so that it starts in a tenth of a second.
"""

from typing import Final

from service.parsing.frames import LENGTH, decode_answer, encode_task
from service.parsing.make import make
from service.parsing.pages import Made, Page, Raw, Read, Task
from service.parsing.slots import INBOUND_BYTES, SLOTS, Slots

# Whether tools/compile.py has been here: then a function has no bytecode.
COMPILED: Final = not hasattr(make, "__code__")

__all__ = [
    "COMPILED",
    "INBOUND_BYTES",
    "LENGTH",
    "SLOTS",
    "Made",
    "Page",
    "Raw",
    "Read",
    "Slots",
    "Task",
    "decode_answer",
    "encode_task",
    "make",
]
