"""Ids of what POP3 announced while IMAP was away: commands take them and give them, once IMAP has shown the mail."""

from service.contract import NUMBERS_FROM, email_id, place_of
from service.errors import Transient
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
    either.followed.desk("INBOX").numbers = Numbers(place.uidvalidity)
    paired, gone, waiting = (email_id("INBOX", place.uidvalidity, number) for number in (PAIRED, GONE, WAITING))
    assert await either.ids() == [first, paired]
    answer = await either.ask("get", {"ids": [first, paired, gone], "properties": ["subject"]})
    assert answer["list"] == [{"id": first, "subject": "one"}, {"id": paired, "subject": "two"}]
    assert answer["notFound"] == [gone]
    assert (await either.ask("flags", {"ids": [paired], "add": ["$flagged"]}))["updated"] == [paired]
    assert (await either.refused("get", {"ids": [waiting]}))[0] == "503"
    assert (await either.refused("get", {"ids": [email_id("INBOX", place.uidvalidity + 1, PAIRED)]}))[0] == "409"
