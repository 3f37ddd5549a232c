"""What is looked at to be recognised: each message once, however often the connection breaks."""

from collections import Counter

import pytest

from service.clock import SystemClock
from service.errors import Transient
from service.ingest import contents as room
from service.ingest.contents import AT_ONCE, BREAKS_LIMIT, UNREAD, Content, Contents, Shown
from service.pop3 import listed
from tests.ingest.maildrop import mail
from tests.pop3.harness import session
from tests.servers.pop3_stub import Hook, Pop3Connection, Pop3Stub

pytestmark = pytest.mark.fault("B04", "B06")


def breaking_at(number: str) -> Hook:
    async def hook(connection: Pop3Connection, arguments: str) -> bool:
        if arguments.partition(" ")[0] != number:
            return False
        connection.cut()
        return True

    return hook


async def look(stub: Pop3Stub, broke: Counter[bytes], shown: Shown, *, by_content: bool) -> list[Content]:
    """Over a connection of its own."""
    contents = Contents(10_000, SystemClock(), broke, shown)
    contents.by_content = by_content
    async with session(stub.port) as opened:
        listing = await listed(opened)
        await contents.read(opened, listing, range(len(listing)))
        return [contents.get(listing, at) for at in range(len(listing))]


@pytest.mark.parametrize("verb", ["TOP", "RETR"])
async def test_where_whole_mails_are_read_one_that_breaks_each_connection_is_passed_by(
    pop3_stub: Pop3Stub, verb: str
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    pop3_stub.hooks[verb] = breaking_at("2")
    broke, shown = Counter[bytes](), Shown()
    for _ in range(BREAKS_LIMIT):
        with pytest.raises(Transient):
            await look(pop3_stub, broke, shown, by_content=True)
    found = await look(pop3_stub, broke, shown, by_content=True)
    assert [bool(one.mark) for one in found] == [True, False, True]
    # What TOP has shown of it, it is known by.
    assert [bool(one.print) for one in found] == [True, verb == "RETR", True]


@pytest.mark.parametrize(("verb", "by_content"), [("TOP", False), ("RETR", True)])
async def test_a_mail_that_came_is_blamed_no_more(pop3_stub: Pop3Stub, verb: str, by_content: bool) -> None:
    pop3_stub.mails, broke = [mail(1), mail(2)], Counter[bytes]()
    for _ in range(BREAKS_LIMIT):
        pop3_stub.hooks[verb] = breaking_at("2")
        with pytest.raises(Transient):
            await look(pop3_stub, broke, Shown(), by_content=by_content)
        pop3_stub.hooks.clear()
        found = await look(pop3_stub, broke, Shown(), by_content=by_content)
        assert all(one.print for one in found)
    assert not broke


async def test_a_look_that_a_connection_does_not_last_for_goes_on_over_the_next(pop3_stub: Pop3Stub) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    pop3_stub.capabilities = "TOP UIDL USER"
    pop3_stub.hooks["TOP"] = breaking_at("3")
    broke, shown = Counter[bytes](), Shown()
    with pytest.raises(Transient):
        await look(pop3_stub, broke, shown, by_content=False)
    pop3_stub.hooks.clear()
    pop3_stub.commands.clear()
    # Another has an id by now, and another size.
    pop3_stub.mails[0].body = mail(30).body
    found = await look(pop3_stub, broke, shown, by_content=False)
    assert [line for line in pop3_stub.commands if line.startswith("TOP")] == ["TOP 1 10", "TOP 3 10"]
    assert all(one.print for one in found)


def test_of_what_connections_leave_the_first_stays_and_the_rest_goes_a_piece_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "SHOWN_LIMIT", 10)
    shown = Shown({(b"", size, False): UNREAD for size in range(10 * AT_ONCE)})
    assert sum(1 for _ in Contents(10_000, SystemClock(), shown=shown).bound()) == 10
    assert [size for _, size, _ in shown] == list(range(10))
