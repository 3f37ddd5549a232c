"""Memory that a parent and its child both see: a page's bodies in, its events and blobs out, in slots.

Used by ingest/parser.py and `python -m service.parsing`. Through a pipe every byte was copied seven times on its way
there and back, 64 KiB at a time, each side waiting for the other; here it is copied once on each side.
"""

import mmap
import os
from typing import Final, Self

# A page has 4 MiB of bodies at most (ingest/plan.py), or is a single message: what does not fit is parsed elsewhere.
INBOUND_BYTES: Final = 5 * 1024 * 1024
# JSON and decoded attachments of such a page; what does not fit goes through the pipe.
OUTBOUND_BYTES: Final = 6 * 1024 * 1024
# One page is parsed while the next one comes in and the last one is taken out.
SLOTS: Final = 3
_SLOT_BYTES: Final = INBOUND_BYTES + OUTBOUND_BYTES


class Slots:
    """The memory, seen from either side. Pages that nobody writes to take no memory."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, SLOTS * _SLOT_BYTES)
        self._view = memoryview(self._map)

    @classmethod
    def create(cls) -> Self:
        """New memory. Raises OSError."""
        fd = os.memfd_create("mailbus-pages")
        try:
            os.ftruncate(fd, SLOTS * _SLOT_BYTES)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def inbound(self, slot: int) -> memoryview:
        """Where a page's bodies stand."""
        return self._view[slot * _SLOT_BYTES :][:INBOUND_BYTES]

    def outbound(self, slot: int) -> memoryview:
        """Where a page's events and blobs stand."""
        return self._view[slot * _SLOT_BYTES + INBOUND_BYTES :][:OUTBOUND_BYTES]

    def close(self) -> None:
        """Let go of it; it is gone when both sides have."""
        self._view.release()
        self._map.close()
        os.close(self.fd)
