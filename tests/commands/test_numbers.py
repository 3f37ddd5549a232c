"""Ids of what POP3 announced while IMAP was away: commands take them and give them, once IMAP has shown the mail."""

import pytest

from service.commands import places
from service.contract import NUMBERS_FROM, ImapPlace, email_id, place_of
from service.errors import Transient
from service.ingest.resync import Stands
from tests.commands.conftest import Desk, mail

PAIRED, GONE, WAITING = (NUMBERS_FROM + n for n in (1, 2, 3))


class Numbers:
    """The second mail was announced under a number, in this epoch."""

    def __init__(self, uidvalidity: int) -> None:
        self.uidvalidity = uidvalidity

    def uid_of(self, uidvalidity: int, number: int) -> int | None:
        if uidvalidity != self.uidvalidity:
            return None
        if number == WAITING:
            raise Transient("IMAP has not shown it yet")
        return 2 if number == PAIRED else 0

    def name_of(self, uidvalidity: int, uid: int) -> int:
        return PAIRED if uidvalidity == self.uidvalidity and uid == 2 else uid


async def test_an_id_that_pop3_gave_is_that_of_its_mail(either: Desk) -> None:
    await either.append(mail("one"), mail("two"))
    first, second = await either.ids()
    place = place_of(second)
    assert place is not None
    assert place.uid == 2
    desk = either.followed.desk("INBOX")
    desk.numbers, desk.stands = Numbers(place.uidvalidity), Stands(place.uidvalidity)
    paired, gone, waiting = (email_id("INBOX", place.uidvalidity, number) for number in (PAIRED, GONE, WAITING))
    assert await either.ids() == [first, paired]
    answer = await either.ask("get", {"ids": [first, paired, gone], "properties": ["subject"]})
    assert answer["list"] == [{"id": first, "subject": "one"}, {"id": paired, "subject": "two"}]
    assert answer["notFound"] == [gone]
    assert (await either.ask("flags", {"ids": [paired], "add": ["$flagged"]}))["updated"] == [paired]
    assert (await either.refused("get", {"ids": [waiting]}))[0] == "503"
    assert (await either.refused("get", {"ids": [email_id("INBOX", place.uidvalidity + 1, PAIRED)]}))[0] == "409"


@pytest.mark.fault("A06")
async def test_an_id_of_another_server_or_user_with_the_same_uidvalidity_is_409(either: Desk) -> None:
    await either.append(mail("one", id="1@x"))
    (before,) = await either.ids()
    place = place_of(before)
    assert place is not None
    # The account was given another user since, and its log has said so.
    either.followed.desk("INBOX").stands = Stands(place.uidvalidity, turn=1)
    (now,) = await either.ids()
    assert place_of(now) == ImapPlace(place.mailbox_hash, place.uidvalidity, place.uid, 1)
    for verb, body in [("get", {}), ("flags", {"add": ["$seen"]}), ("delete", {"permanently": True})]:
        answered, problems = await either.refused(verb, {"ids": [before, now]} | body)
        assert (answered, problems[0]["field"]) == ("409", f"ids.{before}")
    assert await either.subjects_of([now]) == ["one"]
    copied = await either.ask("copy", {"ids": [now], "mailbox": "Sent"})
    assert await either.ids("Sent") == list(copied["created"].values())


async def test_ids_of_a_mailbox_that_has_not_begun_wait_for_it(either: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EPOCH_LIMIT_S", 0.2)
    await either.append(mail("one"))
    (id,) = await either.ids()
    either.followed.desk("INBOX")
    assert (await either.refused("get", {"ids": [id]}))[0] == "503"
