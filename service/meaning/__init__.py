"""What a mail means: an Email and its parts → its kind, reports, calendar, list, verdicts. Pure, never raises.

read.py looks for marks and puts it together; bounces.py, dsn.py and notice.py with places.py read reports of delivery,
reasons.py with words.py, status.py and providers.py says why; feedback.py, calendar.py, lists.py, automatic.py,
authentication.py one each; threads.py finds the conversation. fields.py cuts what they share; glance.py says before all
that whether it may take long.
"""

from service.meaning.bounces import is_by_program
from service.meaning.glance import takes_long
from service.meaning.read import read_meaning
from service.meaning.threads import thread_id

__all__ = ["is_by_program", "read_meaning", "takes_long", "thread_id"]
