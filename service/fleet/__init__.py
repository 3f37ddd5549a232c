"""Who is there, which accounts are whose, and what keeps each account's work going.

assign.py divides accounts among replicas, pure; presence.py holds this process's key in KV; supervise.py runs a piece
of work for ever and turns verdicts into waiting and states; report.py says an account's state on the bus, once a
change.
"""

from service.fleet.assign import Replica, owner
from service.fleet.presence import Presence
from service.fleet.report import AFTER, REQUESTS, SENDER, AccountReports, AccountView, Part
from service.fleet.supervise import Pace, supervise

__all__ = [
    "AFTER",
    "REQUESTS",
    "SENDER",
    "AccountReports",
    "AccountView",
    "Pace",
    "Part",
    "Presence",
    "Replica",
    "owner",
    "supervise",
]
