"""What is done to a mail on its server once its event is confirmed: nothing, marked as seen, deleted, moved.

work.py reads what is confirmed from the log and carries the account's rule out, batch by batch; act.py does it over
IMAP; plan.py (pure) is the record of how far it is done, kept.py reads and writes it. Why so:
docs/decisions/0012-after-is-read-from-the-log.md.
"""

from service.after.plan import RefusedPace
from service.after.work import AfterOptions, AfterWork

__all__ = ["AfterOptions", "AfterWork", "RefusedPace"]
