"""NOTIFY: what a server says unasked of mailboxes that nobody opened is read as news, however it comes."""

from dataclasses import replace

import pytest

from service.imap import Figures, NamesNews, News, NewsMissing, StatusNews, notify
from service.imap.grammar import Condition, Listed, Response, StatusData
from service.imap.notify import news_of
from service.imap.overview import overview
from tests.imap.corpora import differences, read
from tests.imap.test_session import session
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.imap_stub_crowd import NOTIFYING, Crowd

FULL = Figures(uidvalidity=7, uidnext=4, messages=3, modseq=9, unseen=1)
SAID: dict[str, News | None] = {
    '* STATUS "a b" (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 7 UNSEEN 1 HIGHESTMODSEQ 9)': StatusNews("a b", FULL),
    "* STATUS Entw&APw-rfe (UNSEEN 1)": StatusNews("Entwürfe", Figures(unseen=1)),
    "* STATUS {3}\r\na b (HIGHESTMODSEQ 9)": StatusNews("a b", Figures(modseq=9)),
    '* LIST () "/" Born': NamesNews("Born"),
    '* LIST (\\NonExistent) "/" Gone': NamesNews("Gone"),
    '* LIST () "/" New ("OLDNAME" (Old))': NamesNews("New", "Old"),
    '* LIST () "." "INBOX.New" ("OLDNAME" ("INBOX.a b"))': NamesNews("INBOX.New", "INBOX.a b"),
    '* LIST () "/" New (OLDNAME ({3}\r\na b))': NamesNews("New", "a b"),
    '* LIST () "/" New ("CHILDINFO" ("SUBSCRIBED"))': NamesNews("New"),
    '* LIST () "/" New ("OLDNAME" Old)': NamesNews("New"),
    "* OK [NOTIFICATIONOVERFLOW] too much": NewsMissing(ended=True),
    "* NO NOTIFY error, some events may have got lost": NewsMissing(ended=False),
    "* OK still here": None,
    "* 3 EXISTS": None,
    "* 3 FETCH (FLAGS ())": None,
}


@pytest.mark.parametrize("wire", SAID)
def test_it_is_read(wire: str) -> None:
    line = wire.encode() + b"\r\n"
    (response,) = read([line]).responses
    assert news_of(response, utf8=False) == SAID[wire]
    assert differences(line) == []


@pytest.mark.parametrize(
    ("looked", "told", "behind"),
    [
        (FULL, FULL, False),
        (FULL, Figures(unseen=0), False),
        (FULL, Figures(uidnext=5), True),
        (FULL, Figures(uidnext=3, messages=2, modseq=8), False),
        (FULL, Figures(modseq=10), True),
        (FULL, Figures(uidvalidity=8), True),
        (replace(FULL, modseq=None), Figures(uidnext=4, messages=2), True),
    ],
)
def test_what_was_told_is_newer_than_what_was_seen_or_not(looked: Figures, told: Figures, behind: bool) -> None:
    assert looked.behind(told) == behind


def test_what_is_not_told_is_as_it_was() -> None:
    assert Figures(unseen=0, modseq=10).over(FULL) == replace(FULL, unseen=0, modseq=10)
    assert FULL.over(None) == FULL


async def test_how_all_stand_is_told_first_and_from_then_on_what_becomes_of_them(crowd: Crowd) -> None:
    crowd.capabilities = NOTIFYING
    crowd.make("Lists")
    heard: list[News] = []
    lost: list[bool] = []
    async with session(crowd.port) as one:
        await one.examine("INBOX")
        assert await notify(one, heard.append, lambda: lost.append(True)) == {"Lists"}
        assert [type(news) for news in heard] == [StatusNews]
        await crowd.put("Lists", b"x")
        await one.noop()
        # Whoever asks gets an answer, and it is no news.
        await one.list_mailboxes()
        await one.run("STATUS", "Lists", "(MESSAGES)")
        told = [news for news in heard if isinstance(news, StatusNews)]
        assert [(news.mailbox, news.figures.messages, news.asked) for news in told] == [
            ("Lists", 0, True),
            ("Lists", 1, False),
        ]
        assert not lost
    assert lost == [True]


@pytest.mark.parametrize("answer", ["NO [BADEVENT] no", "NO [NOTIFICATIONOVERFLOW] Too many mailbox names", "BAD no"])
async def test_a_refusal_is_none_and_it_is_not_offered_any_more(crowd: Crowd, answer: str) -> None:
    crowd.capabilities = NOTIFYING

    async def refuse(connection: Connection, tag: str, _: str) -> bool:
        await connection.send(f"{tag} {answer}\r\n* STATUS INBOX (MESSAGES 9)\r\n")
        return True

    crowd.hooks["NOTIFY"] = refuse
    heard: list[News] = []
    async with session(crowd.port) as one:
        assert await notify(one, heard.append, lambda: None) is None
        await one.noop()
        assert not one.offers("NOTIFY")


async def test_what_is_told_behind_the_answer_to_a_list_is_news_and_no_part_of_it(imap_stub: ImapStub) -> None:
    async def listed(connection: Connection, tag: str, _arguments: str) -> bool:
        late = '* LIST () "/" Late\r\n* STATUS Late (UIDNEXT 4)\r\n'
        await connection.send(f'* LIST () "/" INBOX\r\n{tag} OK done\r\n{late}')
        return True

    imap_stub.hooks["LIST"] = listed
    heard: list[Response] = []
    async with session(imap_stub.port) as opened:
        opened.news = heard.append
        found = await overview(opened)
        await opened.noop()
    assert [one.name for one in found.mailboxes] == ["INBOX"]
    assert found.figures == {}
    assert [type(one) for one in heard if not isinstance(one, Condition)] == [Listed, StatusData]
