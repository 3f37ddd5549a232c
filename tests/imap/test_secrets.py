"""What a server says to people may repeat the login; nobody may read that."""

import pytest
from structlog.testing import capture_logs

from service.clock import SystemClock
from service.errors import MailbusError, Transient
from service.imap import Session, WritingSession
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


@pytest.mark.fault("G04")
@pytest.mark.parametrize("answer", ["NO", "NO [SERVERBUG]", "BAD"])
async def test_a_refusal_of_any_command_that_repeats_the_login_shows_none_of_it(
    imap_stub: ImapStub, answer: str
) -> None:
    login = ""

    async def note(connection: Connection, tag: str, arguments: str) -> bool:
        nonlocal login
        login = arguments
        return False

    async def refuse(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} {answer} not for {login}\r\n")
        return True

    imap_stub.hooks |= {"LOGIN": note, "NOOP": refuse, "EXAMINE": refuse}
    async with session(imap_stub.port, password="marker-4711") as opened:
        for refused in (opened.noop(), opened.examine("INBOX")):
            with pytest.raises(MailbusError, match=r'not for "\*\*\*" "\*\*\*"'):
                await refused
    one = await WritingSession.open(options(imap_stub.port, password="marker-4711"), clock=SystemClock())
    with pytest.raises(MailbusError, match=r'not for "\*\*\*" "\*\*\*"'):
        await one.open_mailbox("INBOX", writing=False)
    one.abort()
