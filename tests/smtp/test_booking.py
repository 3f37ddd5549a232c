"""A connection that is waited for before there is a message: one's own for message after message, until it is left."""

import asyncio

import pytest

from service.smtp import Booking, Relay
from tests.servers.scripted import serving
from tests.servers.smtp_behind import Watching
from tests.smtp.harness import Dot
from tests.smtp.test_behind import code_of, connections_of, message, relay_to, send, watching
from tests.smtp.test_who_is_next import until


async def send_by(booking: Booking, client: Relay, number: int) -> int:
    sent = client.deliver("me@x", [f"{number}@x"], message(number), before_final_dot=Dot(), booking=booking)
    return code_of(await sent)


async def test_between_the_messages_of_whoever_booked_it_goes_nobody_elses() -> None:
    async with watching(wants=()) as (server, client):
        booking = await client.book()
        others = [asyncio.create_task(send(client, number)) for number in (4, 5)]
        await until(lambda: len(client._waiting) == len(others))
        assert [await send_by(booking, client, number) for number in (1, 2, 3)] == [250] * 3
        assert not server.copies("4@x")
        booking.end()
        assert [code_of(await one) for one in others] == [250] * 2
        # The fifth's, behind the end of one that is anybody's.
        assert [bool(behind) for behind in server.behind] == [False, False, False, True, False]
        assert server.made == connections_of(client) == 1


async def test_a_booked_connection_that_is_lost_has_another_in_its_place() -> None:
    async with watching(wants=()) as (server, client):
        booking = await client.book()
        waiting = asyncio.create_task(send(client, 3))
        await until(lambda: client._waiting)
        assert await send_by(booking, client, 1) == 250
        server.connections[0].cut()
        assert await send_by(booking, client, 2) == 250
        assert not waiting.done()
        booking.end()
        assert code_of(await waiting) == 250
        assert (server.made, connections_of(client)) == (2, 1)


async def test_whoever_booked_a_connection_for_one_message_at_a_time_waits_with_a_second_like_all() -> None:
    async with watching(go=asyncio.Event(), wants=()) as (server, client):
        booking = await client.book()
        assert await send_by(booking, client, 1) == 250
        both = [asyncio.create_task(send_by(booking, client, number)) for number in (2, 3)]
        await server.holds.wait()
        assert len(client._waiting) == 1
        # It is left once the message that has it is through.
        booking.end()
        assert server.go is not None
        server.go.set()
        assert [await one for one in both] == [250] * 2
        assert server.made == connections_of(client) == 1


@pytest.mark.parametrize("first", [True, False])
async def test_a_booking_is_of_one_relay(first: bool) -> None:
    async with watching(wants=()) as (server, client), serving(Watching(wants=())) as another:
        other = relay_to(another)
        booking = await (client if first else other).book()
        assert await send_by(booking, client, 1) == 250
        booking.end()
        await other.close()
        assert connections_of(other) == 0
        assert (server.made, another.made) == (1, 0 if first else 1)
