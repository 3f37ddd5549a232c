"""The log read back by its headers."""

from service.bus import Bus


async def put(bus: Bus, prefix: str, mailbox: str, count: int) -> None:
    for n in range(count):
        await bus.publish(f"{prefix}.in.a.{mailbox}.received", b"body " * 1000, {"Number": str(n)})


async def numbers(bus: Bus, filter_subject: str, after: int, last: int) -> list[int]:
    return [int(m.headers["Number"]) async for m in bus.log.replay(filter_subject, after=after, last=last)]


async def test_a_mailboxes_events_are_replayed_in_order_by_their_headers(bus: Bus, prefix: str) -> None:
    await put(bus, prefix, "one", 700)
    await put(bus, prefix, "two", 3)
    await put(bus, prefix, "one", 5)
    found = [m async for m in bus.log.replay(f"{prefix}.in.a.one.*", after=100, last=705)]
    assert [m.seq for m in found] == [*range(101, 701), 704, 705]
    assert found[0].headers["Nats-Msg-Size"] == "5000"
    assert found[0].subject == f"{prefix}.in.a.one.received"


async def test_a_part_without_messages_is_empty(bus: Bus, prefix: str) -> None:
    await put(bus, prefix, "one", 3)
    assert await numbers(bus, f"{prefix}.in.a.one.*", 3, 3) == []
    assert await numbers(bus, f"{prefix}.in.a.two.*", 0, 3) == []
    assert await numbers(bus, f"{prefix}.in.a.one.*", 1, 900) == [1, 2]


async def test_a_replay_leaves_no_consumer_behind(bus: Bus, prefix: str) -> None:
    await put(bus, prefix, "one", 10)
    stopped = bus.log.replay(f"{prefix}.in.a.one.*", after=0, last=10)
    async for _ in stopped:
        break
    await stopped.aclose()
    await numbers(bus, f"{prefix}.in.a.one.*", 0, 10)
    info = await bus.nc.jetstream().stream_info(f"{prefix.upper()}_IN")
    assert info.state.consumer_count == 0
