"""What commands may read a day: nothing is read beyond it, and what was read is answered."""

import pytest

from service.bus import Bus
from service.ingest import Allowance
from tests.commands.conftest import desk, mail
from tests.servers.dovecot import Dovecot


@pytest.mark.fault("A19")
async def test_what_is_beyond_the_days_share_is_not_read(bus: Bus, bare_dovecot: Dovecot, prefix: str) -> None:
    async with desk(bus, bare_dovecot, prefix, daily=2) as one:
        await one.append(mail("one"))
        ids = await one.ids()
        assert await one.subjects_of(ids) == ["one"]
        asked = {"mailbox": "INBOX", "sort": [{"property": "subject"}]}
        sorted_by_header = ("search", asked)
        whole, header = ("get", {"ids": ids}), ("get", {"ids": ids, "properties": ["subject"]})
        raw = ("get", {"ids": ids, "properties": ["size"], "raw": True})
        for verb, body in (sorted_by_header, whole, header, raw):
            answered, problems = await one.refused(verb, body)
            assert answered == "503"
            assert "may be read a day are read" in problems[0]["message"]
        # What reads no mail is done.
        assert await one.keywords(ids[0]) == {}


@pytest.mark.fault("A19")
@pytest.mark.parametrize("asked", [{}, {"properties": ["subject"]}, {"properties": ["size"], "raw": True}])
async def test_what_was_read_before_the_share_was_used_up_is_given_and_more_follows(
    bus: Bus, bare_dovecot: Dovecot, prefix: str, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object]
) -> None:
    monkeypatch.setattr("service.commands.get.PAGE_LIMIT_MESSAGES", 1)
    async with desk(bus, bare_dovecot, prefix, daily=2) as one:
        await one.append(*(mail(f"m{n}") for n in range(3)))
        ids = await one.ids()
        answer = await one.ask("get", {"ids": ids} | asked)
        assert ([email["id"] for email in answer["list"]], answer["notFound"]) == (ids[:1], [])
        assert answer["more"]
        assert (await one.refused("get", {"ids": ids[1:]} | asked))[0] == "503"


@pytest.mark.fault("A19")
async def test_what_others_use_up_while_mail_is_read_costs_the_answer_nothing(
    bus: Bus, bare_dovecot: Dovecot, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Allowance.check

    def used_up(allowance: Allowance) -> None:
        checked(allowance)
        allowance.note(100)

    monkeypatch.setattr(Allowance, "check", used_up)
    async with desk(bus, bare_dovecot, prefix, daily=2) as one:
        await one.append(mail("m"))
        ids = await one.ids()
        assert await one.subjects_of(ids) == ["m"]
