"""What is done to a mail on its server once its event is confirmed: nothing, marked as seen, deleted, moved.

work.py reads what is confirmed from the log and carries the account's rule out, batch by batch: by hands.py and act.py
over IMAP, by over_pop3.py over POP3; plan.py (pure) is the record of how far it is done, kept.py reads and writes it.
Why so: docs/decisions/0012-after-is-read-from-the-log.md.
"""

from service.after.act import no_target
from service.after.hands import ImapHands
from service.after.over_pop3 import Pop3Hands
from service.after.plan import RefusedPace
from service.after.work import AfterOptions, AfterWork

__all__ = ["AfterOptions", "AfterWork", "ImapHands", "Pop3Hands", "RefusedPace", "no_target"]
