"""A request on the bus → a mail at the relay, and what became of it as status events.

sender.py takes jobs from an account's queues, hands.py holds them, places.py says who may have which place; deliver.py
has one in hand once, ways.py knows which way it takes, bundles.py gets what it needs, attempt.py makes its attempt,
mailing.py where each recipient has a mail, both by the steps of task.py; insist.py has what NATS does not take tried
again; relays.py asks the relay; broken.py goes on where an attempt broke off;
settle.py stores what came of it, replies.py as much as there is room for; request.py settles its id and finds what is
wrong with it; originals.py finds the message that it is about, answer.py puts that in (pure); mail.py makes its
envelope and bytes, dkim.py signs them; suppressions.py knows who gets nothing; turns.py when a request goes, pace.py
and lanes.py how fast the account's mail may go, and a domain's, blame.py whose affair an answer is; retry.py decides
(pure), breaker.py pauses where all is refused; suspects.py knows which jobs ended their process, bugs.py at which
mailbus failed; sends.py keeps a request's state by compare-and-set, outbox.py its bytes while it waits; status.py says
what became of it; sent.py puts a copy into the account's Sent mailbox; returned.py finds it again when a mail bounces,
by proof.py or by names.py, and told.py of whom; evidence.py tells by both whether one went out of which nothing was
heard; waiting.py cancels and releases what was not sent yet; strays.py refuses what is for nobody.
"""

from service.outbound.dkim import DkimKey, DkimSigner, read_dkim_key
from service.outbound.options import ANY, Limit, OutboundOptions
from service.outbound.originals import Originals
from service.outbound.outbox import SENT, Bundle, Outbox
from service.outbound.places import Deliveries
from service.outbound.retry import Phase
from service.outbound.returned import Returned
from service.outbound.sender import Sender
from service.outbound.sends import KEY_HEADER, Sends
from service.outbound.sent import OUTBOX_HEADER, SentMailbox, SentOptions
from service.outbound.strays import Strays
from service.outbound.suppressions import Suppressions
from service.outbound.waiting import Waiting

__all__ = [
    "ANY",
    "KEY_HEADER",
    "OUTBOX_HEADER",
    "SENT",
    "Bundle",
    "Deliveries",
    "DkimKey",
    "DkimSigner",
    "Limit",
    "Originals",
    "OutboundOptions",
    "Outbox",
    "Phase",
    "Returned",
    "Sender",
    "Sends",
    "SentMailbox",
    "SentOptions",
    "Strays",
    "Suppressions",
    "Waiting",
    "read_dkim_key",
]
