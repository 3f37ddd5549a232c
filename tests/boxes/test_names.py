"""Which mailboxes were there before, as the bus remembers it."""

import pytest

from service.boxes import Names
from service.bus import Bus
from service.errors import Transient


def names(bus: Bus) -> Names:
    return Names(bus.key_value(bus.subjects.cursors), "box.names")


async def test_what_was_not_there_before_appeared_for_the_next_process_too(bus: Bus) -> None:
    one = names(bus)
    await one.load()
    assert not one.appeared("a")  # an account that is followed for the first time
    assert await one.save({"a", "b"})
    assert not await one.save({"b", "a"})
    other = names(bus)
    await other.load()
    assert [other.appeared(name) for name in ("a", "b", "c")] == [False, False, True]
    assert await other.save({"a", "c"})
    assert [other.appeared(name) for name in ("a", "b", "c")] == [False, True, False]


async def test_of_two_that_write_at_once_one_is_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    one = names(bus)
    bucket = bus.key_value(bus.subjects.cursors)
    await bucket.create("box.names", b"12345678")
    real = type(bucket).get

    async def late(self: object, key: str) -> object:
        entry = await real(self, key)  # type: ignore[arg-type]  # it is one
        await bucket.update(key, b"87654321", entry.revision)  # type: ignore[union-attr]  # there is one
        return entry

    monkeypatch.setattr(type(bucket), "get", late)
    with pytest.raises(Transient):
        await one.save({"a"})
