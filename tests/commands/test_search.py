"""`search`: what is found, in which order, on a server that can all and on one that can nothing."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Filter, place_of
from service.imap import WritingSession
from tests.commands.conftest import Desk, code, desk, mail, options
from tests.imap.test_criteria import keys
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub

LETTERS = [
    mail("Offer for Ada", id="1@x", body="blue sky", X_Ticket="T-1"),
    mail("Re: Offer for Ada", id="2@x", body="x" * 5000),
    mail("=?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln?=", id="3@x", Cc="chief@customer.example"),
    mail("=?utf-8?q?Gr=C3=BC=C3=9Fe_zwei?=", id="4@x"),
]


def dated(day: int, hour: int = 12) -> str:
    return f'"{day:2d}-Mar-2026 {hour:02d}:00:00 +0000"'


async def put(desk: Desk, message: bytes, date: str = "", flags: str = "") -> None:
    def work() -> None:
        with desk.server.client(desk.user) as client:
            status, said = client.append("INBOX", flags, date, message)
            assert status == "OK", said

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"subject": "offer"}, [0, 1]),
        ({"subject": "grüße"}, [2, 3]),
        ({"text": "blue"}, [0]),
        ({"body": "blue", "subject": "ada"}, [0]),
        ({"cc": "chief"}, [2]),
        ({"from": "ada@customer"}, [0, 1, 2, 3]),
        ({"header": ["X-Ticket"]}, [0]),
        ({"header": ["X-Ticket", "T-2"]}, []),
        ({"minSize": 5000}, [1]),
        ({"maxSize": 5000}, [0, 2, 3]),
        ({"hasKeyword": "$seen"}, [1]),
        ({"notKeyword": "$seen"}, [0, 2, 3]),
        ({"hasKeyword": "project-x"}, [3]),
        ({"operator": "OR", "conditions": [{"text": "blue"}, {"subject": "zwei"}]}, [0, 3]),
        ({"operator": "NOT", "conditions": [{"text": "blue"}, {"subject": "zwei"}]}, [1, 2]),
        (
            {
                "operator": "AND",
                "conditions": [{"subject": "offer"}, {"operator": "NOT", "conditions": [{"text": "sky"}]}],
            },
            [1],
        ),
    ],
)
async def test_a_filter_finds_what_jmap_says(either: Desk, filter: dict[str, Any], found: list[int]) -> None:
    for letter, flags in zip(LETTERS, ["", "(\\Seen)", "", "(project-x)"], strict=True):
        await put(either, letter, flags=flags)
    there = await either.ids()
    assert await either.ids(filter=filter) == [there[n] for n in found]


async def test_text_that_stands_undeclared_in_a_header_is_found(whole: Desk) -> None:
    await put(whole, mail("Grüße", id="8bit@x"))
    assert await whole.ids(filter={"subject": "grüße"}) == await whole.ids()


async def test_a_moment_is_exact_to_the_second(either: Desk) -> None:
    for hour in (9, 10, 11):
        await put(either, mail(f"at {hour}"), dated(1, hour))
    await put(either, mail("next day"), dated(2, 1))
    await put(either, mail("elsewhere"), '" 1-Mar-2026 23:30:00 +1400"')  # 09:30 in UTC
    for filter, expected in [
        ({"after": "2026-03-01T10:00:00Z"}, ["at 10", "at 11", "next day"]),
        ({"after": "2026-03-01T10:00:01Z"}, ["at 11", "next day"]),
        ({"before": "2026-03-01T10:00:00Z"}, ["at 9", "elsewhere"]),
        ({"after": "2026-03-01T09:15:00Z", "before": "2026-03-01T11:00:00+01:00"}, ["elsewhere"]),
        ({"operator": "NOT", "conditions": [{"after": "2026-03-01T11:00:00Z"}]}, ["at 9", "at 10", "elsewhere"]),
    ]:
        assert await either.subjects(filter=filter) == expected, filter


async def test_a_moment_of_today_is_exact_too(either: Desk) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for ago in (7200, 600, 30):
        moment = now - timedelta(seconds=ago)
        await put(either, mail(f"{ago} ago"), f'"{moment:%d-%b-%Y %H:%M:%S} +0000"')
    moment = (now - timedelta(seconds=600)).isoformat()
    assert await either.subjects(filter={"after": moment}) == ["600 ago", "30 ago"]
    assert await either.subjects(filter={"before": moment}) == ["7200 ago"]
    tomorrow = (now + timedelta(days=1)).isoformat()
    assert await either.subjects(filter={"after": tomorrow}) == []
    assert len(await either.ids(filter={"before": tomorrow})) == 3


async def test_pages_come_newest_first_and_say_whether_more_follows(either: Desk) -> None:
    await either.append(*[mail(f"m{n}") for n in range(5)])
    newest = (await either.ids())[::-1]
    first = await either.ask("search", {"mailbox": "INBOX", "limit": 2})
    assert first == {"ids": newest[:2], "position": 0, "total": 5, "more": True}
    last = await either.ask("search", {"mailbox": "INBOX", "limit": 2, "position": 3})
    assert last == {"ids": newest[3:], "position": 3, "total": 5, "more": False}
    beyond = await either.ask("search", {"mailbox": "INBOX", "position": 9})
    assert beyond == {"ids": [], "position": 9, "total": 5, "more": False}
    assert (await either.ask("search", {"mailbox": "INBOX", "limit": 0}))["ids"] == []


async def test_a_server_that_offers_sort_and_does_not_know_it_is_sorted_for(
    imap_stub: ImapStub, bus: Bus, prefix: str
) -> None:
    async def refuse(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"{tag} BAD what?\r\n")
        return True

    async def find(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"* SEARCH 1 2 3\r\n{tag} OK done\r\n")
        return True

    imap_stub.capabilities = "IMAP4rev1 LITERAL+ SORT"
    imap_stub.hooks = {"UID SORT": refuse, "UID SEARCH": find}
    imap_stub.messages = {1: b"x" * 9, 2: b"x" * 3, 3: b"x" * 6}
    async with desk(bus, Dovecot(Path()), prefix, port=imap_stub.port) as one:
        for _ in range(2):
            answer = await one.ask("search", {"mailbox": "INBOX", "sort": [{"property": "size"}]})
            assert [place.uid for id in answer["ids"] if (place := place_of(id))] == [2, 3, 1]
    assert sum("SORT" in command for command in imap_stub.commands) == 1


SORTED = [
    (mail("Banana", From="zoe@x.example", Date="Sun, 01 Mar 2026 10:00:00 +0000", body="x" * 300), dated(3)),
    (mail("Re: apple", From="Carl <a@x.example>", Date="Tue, 03 Mar 2026 10:00:00 +0000"), dated(1)),
    (
        mail("[list] cherry", From='"bert" <c@x.example>', Date="Mon, 02 Mar 2026 10:00:00 +0000", body="x" * 99),
        dated(2),
    ),
]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ([{"property": "receivedAt"}], [1, 2, 0]),
        ([{"property": "receivedAt", "isAscending": False}], [0, 2, 1]),
        ([{"property": "size"}], [1, 2, 0]),
        ([{"property": "sentAt"}], [0, 2, 1]),
        ([{"property": "subject"}], [1, 0, 2]),
        ([{"property": "from", "isAscending": False}], [0, 1, 2]),
        ([{"property": "to"}, {"property": "size", "isAscending": False}], [0, 2, 1]),
        ([{"property": "to", "isAscending": False}], [0, 1, 2]),
    ],
)
async def test_both_servers_sort_alike(either: Desk, sort: list[dict[str, Any]], order: list[int]) -> None:
    for letter, date in SORTED:
        # The helper writes a From of its own before.
        await put(either, letter.replace(b"From: Ada <ada@customer.example>\r\n", b""), date)
    there = await either.ids()
    assert await either.ids(sort=sort) == [there[n] for n in order]


async def test_a_mailbox_is_found_by_name_and_by_id(whole: Desk) -> None:
    await whole.append(mail("one"))
    (inbox,) = [one for one in (await whole.ask("mailboxes"))["list"] if one["role"] == "inbox"]
    assert await whole.ids("inbox") == await whole.ids(inbox["id"]) == await whole.ids()
    assert await whole.refused("search", {"mailbox": "nowhere"}) == (
        "404",
        [{"field": "mailbox", "message": "no such mailbox: `mailboxes` lists those that are there"}],
    )


async def test_a_wrong_search_is_400_with_its_field(whole: Desk) -> None:
    for body, field in [
        ({}, "mailbox"),
        ({"mailbox": "INBOX", "filter": {"hasAttachment": True}}, "filter.hasAttachment"),
        ({"mailbox": "INBOX", "filter": {"subject": "a\r\nb"}}, "filter.subject"),
        ({"mailbox": "INBOX", "sort": [{"property": "colour"}]}, "sort[0].property"),
        ({"mailbox": "INBOX", "sort": [{"property": "size"}] * 9}, "sort"),
        ({"mailbox": "INBOX", "limit": 100000}, "limit"),
        ({"mailbox": "a\r\nb"}, "mailbox"),
    ]:
        answered, problems = await whole.refused("search", body)
        assert answered == ("404" if body.get("mailbox") == "a\r\nb" else "400"), body
        assert problems[0]["field"] == field, body
    for body in (b"nonsense", b"[]", b"\xff"):
        assert code(await whole.message("search", body)) == "400"


WORDS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.fault("G07")
async def test_any_text_is_looked_for_and_nothing_else_happens(
    whole_dovecot: Dovecot, bare_dovecot: Dovecot, prefix: str
) -> None:
    generated = hypothesis_examples(WORDS, 150)
    for server in (whole_dovecot, bare_dovecot):
        await server.append(prefix, [mail("one")])
        session = await WritingSession.open(options(server, prefix), clock=SystemClock())
        try:
            await session.open_mailbox("INBOX", writing=True)
            for text in [*generated, "{5}", "{5+}", ") UID STORE 1 +FLAGS (\\Deleted)", '" OR ALL', "\\"]:
                await session.search(keys(Filter(text=text, subject=text, header=["X-A", text])))
                # The server is in step, and nothing was changed.
                assert await session.there([1]) == [1], text
            assert (await session.survey_these([1]))[0].flags <= {"\\Recent"}
        finally:
            session.abort()


def hypothesis_examples(strategy: st.SearchStrategy[str], count: int) -> list[str]:
    found: list[str] = []

    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate])
    @given(strategy)
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found
