"""The private names of aioimaplib that protocol.py stands on: a new version that moves one fails here, by name."""

import asyncio
import inspect

import pytest
from aioimaplib import aioimaplib


@pytest.mark.parametrize(
    "name",
    [
        "_response_done",
        "execute",
        "new_tag",
        "send",
        "idle_done",
        "connection_made",
        "data_received",
        "connection_lost",
    ],
)
def test_the_protocol_has(name: str) -> None:
    assert callable(getattr(aioimaplib.IMAP4ClientProtocol, name))


async def test_the_protocol_keeps_its_state_where_we_look() -> None:
    protocol = aioimaplib.IMAP4ClientProtocol(asyncio.get_running_loop())
    assert protocol.state == aioimaplib.STARTED
    assert protocol.pending_sync_command is None
    assert protocol.pending_async_commands == {}
    assert protocol.transport is None


async def test_a_command_wakes_by_its_event_with_its_exception() -> None:
    command = aioimaplib.Command("NOOP", "A1", loop=asyncio.get_running_loop(), timeout=5)
    command._exception = ValueError("lost")
    command._timer.cancel()
    command._event.set()
    with pytest.raises(ValueError, match="lost"):
        await command.wait()
    assert callable(command._reset_timer)


def test_the_table_of_commands_has_what_we_send() -> None:
    ours = "AUTHENTICATE CAPABILITY ENABLE EXAMINE FETCH ID IDLE LIST LOGIN LOGOUT NOOP SEARCH STARTTLS"
    assert set(ours.split()) <= set(aioimaplib.Commands)


def test_a_command_refuses_line_breaks() -> None:
    assert "CONTROL_CHARS" in inspect.getsource(aioimaplib.Command.__init__)
