"""Messages as they were read → events and blobs, and a program that does it in a process of its own.

make.py turns one message into its event, purely; frames.py is how pages cross a pipe; `python -m service.parsing`
answers them. It imports little, so that it starts in a tenth of a second.
"""

from service.parsing.frames import LENGTH, Task, decode_answer, encode_frame
from service.parsing.make import Made, Page, Raw, Read, make

__all__ = ["LENGTH", "Made", "Page", "Raw", "Read", "Task", "decode_answer", "encode_frame", "make"]
