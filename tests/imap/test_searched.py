"""What a search found, however the server says it: a line of numbers, spans, one line or several."""

import itertools
import random
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import SystemClock
from service.errors import PeerError
from service.imap import Changes, Session, WritingSession, searched
from service.imap.grammar import Search, numbers_in, parse_response
from service.imap.overview import overview
from service.imap.refusals import Refused
from service.imap.searched import numbers_of, runs_found, runs_gone
from service.imap.spans import AT_ONCE_BYTES, runs_in
from service.imap.uidplus import runs_of
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection, ImapStub

S = TypeVar("S", bound=Session)
MANY = [*range(1, 200_000, 2)]


def search(line: bytes) -> Search:
    response = parse_response([line])
    assert isinstance(response, Search)
    return response


async def test_a_line_of_very_many_numbers_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def watched(text: bytes) -> list[int]:
        threads.append(threading.current_thread() is threading.main_thread())
        return numbers_in(text)

    monkeypatch.setattr(searched, "numbers_in", watched)
    found = search(b"* SEARCH " + b" ".join(b"%d" % n for n in MANY))
    assert found.numbers == []
    assert await numbers_of([found]) == MANY
    assert threads == [False]


async def test_a_long_set_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def watched(*arguments: Any) -> list[range]:
        threads.append(threading.current_thread() is threading.main_thread())
        return runs_in(*arguments)

    monkeypatch.setattr(searched, "runs_in", watched)
    text = b",".join(b"%d" % n for n in MANY)
    runs = [range(n, n + 1) for n in MANY]
    assert await runs_found([search(b'* ESEARCH (TAG "a") UID ALL ' + text)], where="") == runs
    assert await runs_gone([text[:20_000] + b"0", text], 1, 2**32 - 1, where="") == runs
    assert await runs_gone([b"7"], 1, 9, where="") == [range(7, 8)]
    assert threads == [False, False, True]


async def test_who_says_what_is_no_set_is_named() -> None:
    with pytest.raises(PeerError, match="none") as refused:
        await runs_found([Search([], b"1:x")], where="imap.example.org:993")
    assert refused.value.where == "imap.example.org:993"


async def test_a_short_line_is_read_at_once() -> None:
    found = search(b"* SEARCH 2 84 882")
    assert found == Search([2, 84, 882])
    assert await numbers_of([found]) == [2, 84, 882]


async def test_an_order_that_the_server_chose_stays() -> None:
    text = b" ".join(b"%d" % n for n in reversed(MANY))
    assert await numbers_of([search(b"* SORT 9 3 5")]) == [9, 3, 5]
    assert await numbers_of([search(b"* SORT " + text)]) == MANY[::-1]


async def test_runs_are_ascending_and_each_number_is_there_once() -> None:
    found = [search(b"* SEARCH 9 3 4"), search(b"* SEARCH 4 5"), Search([], b"1,4:6,2:1")]
    assert await runs_found(found, where="") == [range(1, 7), range(9, 10)]
    assert await runs_found(found, 2, 4, where="") == [range(2, 5)]


async def test_runs_of_very_many_numbers_in_any_order_are_sorted_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = [*MANY, 5, 5]
    random.Random(7).shuffle(numbers)
    at_once: list[int] = []

    def watched(some: Sequence[int]) -> list[range]:
        at_once.append(len(some))
        return runs_of(some)

    monkeypatch.setattr(searched, "runs_of", watched)
    found = [search(b"* SEARCH " + b" ".join(b"%d" % n for n in numbers))]
    assert await runs_found(found, where="") == [range(n, n + 1) for n in MANY]
    assert max(at_once) <= searched.AT_ONCE


@given(st.lists(st.integers(1, 2**32 - 1), max_size=3), st.integers(0, 3))
def test_what_is_no_number_is_left_out_wherever_a_long_line_is_cut(numbers: list[int], spaces: int) -> None:
    padding = b"0 x -1 4294967296 " * (AT_ONCE_BYTES // 18 + spaces)
    text = b" " * spaces + padding.join(b"%d " % n for n in numbers)
    assert numbers_in(text) == numbers


@given(st.sets(st.integers(1, 200)))
def test_runs_of_numbers_have_these_numbers_and_no_neighbours(numbers: set[int]) -> None:
    runs = runs_of(sorted(numbers))
    assert [n for run in runs for n in run] == sorted(numbers)
    assert all(one.stop < other.start for one, other in itertools.pairwise(runs))


# -- whose answer it is ---------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(stub: ImapStub, kind: type[S]) -> AsyncIterator[S]:
    """A mailbox of two, on a connection of this kind."""
    stub.messages = {1: b"one", 2: b"two"}
    session = await kind.open(options(stub.port), clock=SystemClock())
    try:
        await session.examine("INBOX")
        yield session
    finally:
        session.abort()


@pytest.mark.fault("A10")
async def test_what_another_search_found_is_no_answer_to_ours(imap_stub: ImapStub) -> None:
    async def anothers(connection: Connection, _tag: str, _arguments: str) -> bool:
        await connection.send('* ESEARCH (TAG "another") UID MIN 1 ALL 1:90\r\n')
        return False

    imap_stub.hooks["UID SEARCH"] = anothers
    async with opened(imap_stub, Session) as session:
        assert await Changes(session).present(1, 100) == [range(1, 3)]
        assert await session.search_lowest("SINCE 1-Jan-2026") is None


NO_ESEARCH = ['* ESEARCH (TAG "another") UID ALL 1:90\r\n{tag} OK done', "{tag} BAD RETURN?"]


@pytest.mark.fault("A10")
@pytest.mark.parametrize("said", NO_ESEARCH)
async def test_a_server_that_answers_no_esearch_is_asked_as_all_know_it(imap_stub: ImapStub, said: str) -> None:
    async def refuse(connection: Connection, tag: str, arguments: str) -> bool:
        if "RETURN" in arguments:
            await connection.send(said.format(tag=tag) + "\r\n")
        return "RETURN" in arguments

    imap_stub.hooks["UID SEARCH"] = refuse
    async with opened(imap_stub, Session) as session:
        for _ in range(2):
            assert await Changes(session).present(1, 100) == [range(1, 3)]
    assert [command.partition(" ")[2] for command in imap_stub.commands if "SEARCH" in command] == [
        "UID SEARCH RETURN (ALL) UID 1:100",
        "UID SEARCH UID 1:100",
        "UID SEARCH UID 1:100",
    ]


@pytest.mark.fault("A10")
@pytest.mark.parametrize("said", NO_ESEARCH)
async def test_commands_ask_such_a_server_as_all_know_it_too(imap_stub: ImapStub, said: str) -> None:
    async def refuse(connection: Connection, tag: str, arguments: str) -> bool:
        if "RETURN" in arguments:
            await connection.send(said.format(tag=tag) + "\r\n")
        return "RETURN" in arguments

    imap_stub.hooks["UID SEARCH"] = refuse
    async with opened(imap_stub, WritingSession) as session:
        for _ in range(2):
            assert await session.search(["UID 1:100"]) == [range(1, 3)]
    assert [command.partition(" ")[2] for command in imap_stub.commands if "SEARCH" in command] == [
        "UID SEARCH RETURN (ALL) UID 1:100",
        "UID SEARCH UID 1:100",
        "UID SEARCH UID 1:100",
    ]


@pytest.mark.parametrize("status", ["NO", "BAD"])
async def test_a_search_that_is_refused_either_way_tells_nothing_of_esearch(imap_stub: ImapStub, status: str) -> None:
    async def refuse(connection: Connection, tag: str, arguments: str) -> bool:
        if "OLDER" in arguments:
            await connection.send(f"{tag} {status} OLDER?\r\n")
        return "OLDER" in arguments

    imap_stub.hooks["UID SEARCH"] = refuse
    async with opened(imap_stub, WritingSession) as session:
        with pytest.raises(Refused, match="OLDER"):
            await session.search(["OLDER 60"])
        assert session.offers("ESEARCH")
        assert await session.search(["UID 1:100"]) == [range(1, 3)]


async def test_so_is_one_that_gives_commands_no_answer_of_their_own(imap_stub: ImapStub) -> None:
    async def search(connection: Connection, tag: str, arguments: str) -> bool:
        found = '* ESEARCH (TAG "another") UID ALL 2' if "RETURN" in arguments else "* SEARCH 1"
        await connection.send(f"{found}\r\n{tag} OK done\r\n")
        return True

    imap_stub.hooks["UID SEARCH"] = search
    async with opened(imap_stub, WritingSession) as session:
        assert await session.search(["ALL"]) == [range(1, 2)]


@pytest.mark.fault("A10")
async def test_what_imap4rev2_took_in_stays_but_for_what_is_refused(imap_stub: ImapStub) -> None:
    async def refuse(connection: Connection, tag: str, arguments: str) -> bool:
        if "RETURN" in arguments:
            await connection.send(f"{tag} BAD RETURN?\r\n")
        return "RETURN" in arguments

    imap_stub.capabilities = "IMAP4rev1 IMAP4rev2 ESEARCH"
    imap_stub.hooks["UID SEARCH"] = imap_stub.hooks["LIST"] = refuse
    async with opened(imap_stub, Session) as session:
        assert await Changes(session).present(1, 100) == [range(1, 3)]
        assert not session.offers("ESEARCH")
        assert all(map(session.offers, ["LIST-EXTENDED", "LIST-STATUS", "LITERAL-", "MOVE", "SPECIAL-USE", "UIDPLUS"]))
        await overview(session)
        assert not session.offers("LIST-STATUS")
        assert all(map(session.offers, ["LITERAL-", "MOVE", "SPECIAL-USE", "UIDPLUS"]))
