"""What the process shows of itself."""

from service.build import Work
from service.contract import AccountPart
from service.fleet import Part
from service.ingest import MailboxStatus
from service.snapshot import behind


async def _never() -> None:
    raise AssertionError("not run")


def work(account: str, *statuses: MailboxStatus) -> Work:
    part = Part(AccountPart.MAILBOX, "INBOX")
    return Work(account, part, _never, [part], lambda: statuses)


def test_behind_is_the_sum_over_all_mailboxes_of_all_accounts() -> None:
    here = [
        work("a", MailboxStatus("INBOX", last_uid=7, top_uid=10), MailboxStatus("Sent", last_uid=5, top_uid=5)),
        work("b", MailboxStatus("INBOX", last_uid=0, top_uid=2), MailboxStatus("new")),
    ]
    assert behind(here) == 5
    assert behind([]) == 0
