"""Messages without unique ids that cannot be had: what is counted of them, and for how long."""

from contextlib import suppress

import pytest

from service.errors import Transient
from service.pop3.maildrop import listed
from service.pop3.nameless import TRIES, Nameless
from tests.pop3.harness import answering, session
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub

LIMIT = 10_000


def mail(number: int) -> Mail:
    """All of one size."""
    header = f"Received: from a by b; Fri, 1 Jan 2021 10:00:{number:02d} +0000\r\nSubject: mail\r\n\r\n"
    return Mail("", f"{header}{number:02d}\r\n".encode())


class Refusing:
    """A server without unique ids that does not give some mails: it says so, or it drops the connection."""

    def __init__(self, stub: Pop3Stub, *, cuts: bool) -> None:
        self.stub = stub
        self.cuts = cuts
        self.bad: list[Mail] = []
        self.asked: list[bytes] = []
        self.nameless = Nameless(LIMIT)
        stub.capabilities = "TOP USER PIPELINING"
        stub.hooks["UIDL"] = answering("-ERR what?\r\n")
        stub.hooks["RETR"] = self.retr

    async def retr(self, connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        one = connection.drop[int(arguments) - 1]
        self.asked.append(one.body)
        if one not in self.bad:
            return False
        if self.cuts:
            connection.cut()
        else:
            await connection.send("-ERR no\r\n")
        return True

    async def look(self) -> bool:
        """One session: whether all messages have an identity by now."""
        with suppress(Transient):
            async with session(self.stub.port) as opened:
                listing = await listed(opened)
                await self.nameless.name(opened, listing)
                return not listing.unnamed
        return False

    async def wait_named(self) -> int:
        """In how many sessions all were named."""
        for count in range(1, 20):
            if await self.look():
                return count
        raise AssertionError("never")


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("cuts", [True, False])
async def test_what_cannot_be_had_is_given_up_after_three_times_though_its_header_is_read_after_the_first(
    pop3_stub: Pop3Stub, *, cuts: bool
) -> None:
    server = Refusing(pop3_stub, cuts=cuts)
    pop3_stub.mails = [mail(1), mail(2)]
    server.bad = [pop3_stub.mails[1]]
    await server.wait_named()
    assert server.asked.count(pop3_stub.mails[1].body) == TRIES
    assert server.asked.count(pop3_stub.mails[0].body) == 1


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("cuts", [True, False])
async def test_failures_of_a_mail_that_is_gone_are_forgotten(pop3_stub: Pop3Stub, *, cuts: bool) -> None:
    server = Refusing(pop3_stub, cuts=cuts)
    bad = mail(2)
    pop3_stub.mails = [mail(1), bad]
    server.bad = [bad]
    await server.wait_named()
    asked = server.asked.count(bad.body)
    pop3_stub.mails = [mail(1)]
    await server.wait_named()
    # It was moved away and comes back: it is asked for as any other is.
    pop3_stub.mails = [mail(1), bad]
    server.bad = []
    assert await server.wait_named() == 1
    assert server.asked.count(bad.body) == asked + 1


@pytest.mark.fault("B03", "B06")
async def test_of_mail_that_comes_and_goes_and_cannot_be_had_nothing_is_kept(pop3_stub: Pop3Stub) -> None:
    server = Refusing(pop3_stub, cuts=False)
    for number in range(1, 11):
        server.bad = pop3_stub.mails = [mail(number)]
        await server.wait_named()
    assert len(server.nameless._failed) <= 1
    pop3_stub.mails = []
    await server.wait_named()
    assert not server.nameless._failed


@pytest.mark.fault("B03", "B06")
async def test_a_mail_does_not_inherit_what_failed_of_another_that_stood_in_its_place(pop3_stub: Pop3Stub) -> None:
    server = Refusing(pop3_stub, cuts=False)
    pop3_stub.mails = [mail(1), mail(2)]
    server.bad = [pop3_stub.mails[1]]
    assert not await server.look()
    assert not await server.look()
    # It can be had by now, and another of its size comes in its place.
    server.bad = []
    await server.wait_named()
    server.bad = [mail(3)]
    pop3_stub.mails[1] = server.bad[0]
    await server.wait_named()
    assert server.asked.count(mail(3).body) == TRIES
