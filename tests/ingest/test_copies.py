"""Copies of cursors: forwards for whoever commits, backwards only where the log went back."""

from datetime import UTC, datetime

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.ingest import Copies
from service.ingest.cursor import Copy, Cursor, load_copy

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "box.inbox"


def copy_at(seq: int) -> Copy:
    cursor = Cursor("source", 1, seq, 0, "one/1")
    return Copy(stream_created=CREATED, seq=seq, cursor=cursor, start=cursor)


async def written(bus: Bus) -> int:
    entry = await bus.key_value(bus.subjects.cursors).get(KEY)
    assert entry is not None
    copy = load_copy(entry.value)
    assert copy is not None
    return copy.seq


@pytest.mark.fault("D07")
async def test_what_waited_to_be_written_before_the_log_went_back_is_not_written_over_the_correction(bus: Bus) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    copies.note(KEY, copy_at(9))
    await copies.replace(KEY, copy_at(5))
    await copies.flush()
    assert await written(bus) == 5
    copies.note(KEY, copy_at(6))
    await copies.flush()
    assert await written(bus) == 6


async def test_a_position_that_waits_to_be_written_is_known_already(bus: Bus) -> None:
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    await copies.write(KEY, copy_at(5))
    copies.note(KEY, copy_at(7))
    assert await copies.load(KEY) == copy_at(7)
    await copies.write(KEY, copy_at(8))  # by another process
    assert await copies.load(KEY) == copy_at(8)
