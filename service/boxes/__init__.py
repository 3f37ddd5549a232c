"""An account's mailboxes over its few connections: which are followed, and which is read when.

plan.py decides: names of patterns and roles, whose turn it is; lines.py owns the connections and lends them;
rounds.py asks what there is and what has moved, or hears it (ear.py: whether); boxes.py begins and ends the mailboxes'
lives, which are others' work; names.py remembers which were there before.
"""

from service.boxes.boxes import Appeared, Boxes, Life
from service.boxes.lines import Lines, Place
from service.boxes.names import Names
from service.boxes.plan import Chosen
from service.boxes.rounds import Rounds, no_role

__all__ = ["Appeared", "Boxes", "Chosen", "Life", "Lines", "Names", "Place", "Rounds", "no_role"]
