"""Who is there, which accounts are whose, and what keeps each account's work going.

assign.py divides accounts among replicas and members.py says who counts and when an account may be taken, both pure;
presence.py holds this process's key in KV; roster.py hears of all keys, and steer.py has running.py begin and end
accounts; supervise.py runs a piece of work for ever and turns verdicts into waiting and states; report.py says an
account's state on the bus, once a change.
"""

from service.fleet.assign import Replica, owner
from service.fleet.presence import Presence
from service.fleet.report import AFTER, MAILBOXES, REQUESTS, SENDER, SENT, AccountReports, AccountView, Part
from service.fleet.roster import Roster
from service.fleet.running import DRAIN_TIMEOUT_S, NATS_ASKED_S, NATS_SILENT_S, Kind, Running
from service.fleet.steer import Steering
from service.fleet.supervise import Pace, pause_s, supervise, unending

__all__ = [
    "AFTER",
    "DRAIN_TIMEOUT_S",
    "MAILBOXES",
    "NATS_ASKED_S",
    "NATS_SILENT_S",
    "REQUESTS",
    "SENDER",
    "SENT",
    "AccountReports",
    "AccountView",
    "Kind",
    "Pace",
    "Part",
    "Presence",
    "Replica",
    "Roster",
    "Running",
    "Steering",
    "owner",
    "pause_s",
    "supervise",
    "unending",
]
