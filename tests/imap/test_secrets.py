"""What a server says to people may repeat the login; nobody may read that."""

import pytest
from structlog.testing import capture_logs

from service.clock import SystemClock
from service.errors import Transient
from service.imap import Session
from tests.imap.test_session import options, session
from tests.servers.imap_stub import Connection, ImapStub


@pytest.mark.fault("G04")
async def test_a_farewell_that_repeats_the_login_shows_none_of_it(imap_stub: ImapStub) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"* BYE no more of {arguments}\x07\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    with pytest.raises(Transient, match=r'BYE no more of "\*\*\*" "\*\*\*"'):
        await Session.open(options(imap_stub.port), clock=SystemClock())


@pytest.mark.fault("G04")
async def test_an_alert_that_repeats_the_login_is_shown_without_it(imap_stub: ImapStub) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"* NO [ALERT] blocked: {arguments}\r\n{tag} OK in\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    with capture_logs() as lines:
        async with session(imap_stub.port):
            pass
    (alert,) = [line for line in lines if line["event"] == "imap_alert"]
    assert alert["text"] == 'blocked: "***" "***"'
