"""The metric objects. Label values come from closed sets, never from a mailbox, an address or an error's text."""

from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from service.observe.level import Level
from service.observe.oldest import Oldest
from service.observe.stuck import Stuck

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300)
BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

# type: EventType
EVENTS: Final = Counter("mailbus_events_total", "Events committed to the log.", ["type"])
# result: committed, refused, unknown
COMMITS: Final = Counter("mailbus_commits_total", "Commits to the log, by how they ended.", ["result"])
BATCH_EVENTS: Final = Histogram("mailbus_batch_events", "Events in one commit.", buckets=BATCH_BUCKETS)
INGEST_SECONDS: Final = Histogram(
    "mailbus_ingest_seconds", "From the server's notice to the confirmed event.", buckets=LATENCY_BUCKETS_S
)
BYTES_FETCHED: Final = Counter("mailbus_fetched_bytes_total", "Bytes of messages read from mail servers.")
# state: of an account that runs: connected, disconnected, auth_failed, degraded
ACCOUNTS: Final = Gauge("mailbus_accounts", "Accounts of this process, by state.", ["state"])
# One that is there for less is mostly a server that is away for a moment.
ACCOUNTS_STUCK: Final = Stuck(
    "mailbus_accounts_stuck",
    "Accounts of this process in that state for 10 (auth_failed), 15 (degraded), 30 (disconnected) minutes or longer, "
    "in all since they were last connected.",
    {"auth_failed": 600.0, "degraded": 900.0, "disconnected": 1800.0},
)
REPLICAS: Final = Gauge("mailbus_replicas", "Processes that share the accounts, as this one counts them.")
# Apart from NATS's connection: JetStream may say nothing on one that stands.
HAS_SHARE: Final = Gauge(
    "mailbus_has_share",
    "1 while this process has its share of the accounts, and surely has; 0: it can confirm nothing.",
)
# outcome: State of a request
RECIPIENTS: Final = Counter("mailbus_recipients_total", "Recipients settled or put off, by outcome.", ["outcome"])


@cache
def recipients(outcome: str) -> Counter:
    """Those of one outcome. Looked up once: that takes as long as counting."""
    return RECIPIENTS.labels(outcome=outcome)


SEND_SECONDS: Final = Histogram(
    "mailbus_send_seconds", "From taking a request to its relay's last reply.", buckets=LATENCY_BUCKETS_S
)
# where: queue, send, retry, held
WAITING: Final = Gauge("mailbus_waiting", "What waits in this process, by where.", ["where"])
SENDING: Final = Level(WAITING.labels(where="send"))
# As far as the sender has seen of each account's queue.
QUEUE_AGE: Final = Oldest("mailbus_queue_age_seconds", "How long the oldest request in the queue has waited.")
FENCE_REFUSED: Final = Counter("mailbus_fence_refused_total", "Commits that the fence refused.")
# reason: DeadReason
DEAD: Final = Counter("mailbus_dead_total", "What went to the dead letters, by reason.", ["reason"])
BUGS: Final = Counter("mailbus_bugs_total", "Exceptions that no verdict covers. Zero, or report it.")
IDLE_STALE: Final = Counter("mailbus_idle_stale_total", "IDLE connections found dead by their watchdog.")
# kind: exists_shrank, uidnext_backwards, late_uid, copyuid, appenduid
PROTOCOL_VIOLATION: Final = Counter("mailbus_protocol_violation_total", "Lies of mail servers, by kind.", ["kind"])
LOG_ROLLBACK: Final = Counter("mailbus_log_rollback_total", "Times the log was found rolled back.")
FOREIGN_EVENTS: Final = Counter(
    "mailbus_foreign_events_total", "Times a mailbox's last event in the log was none of mailbus's."
)
CONSUMER_OVERRUN: Final = Counter(
    "mailbus_consumer_overrun_total", "Events that consumers lost to the log's retention, at least."
)
# result: kept, found, refused, no_mailbox
SENT_COPIES: Final = Counter(
    "mailbus_sent_copies_total", "Copies for Sent mailboxes, by what became of them.", ["result"]
)
# result: done, marked, gone, stale, refused, given_up
AFTER: Final = Counter("mailbus_after_total", "Mails whose account's `after` was to be done, by result.", ["result"])
# verb: Verb; code: 200, 400, 404, 409, 500, 503, 504
COMMANDS: Final = Counter("mailbus_commands_total", "Commands answered, by verb and code.", ["verb", "code"])
# verb: Verb
COMMAND_SECONDS: Final = Histogram(
    "mailbus_command_seconds", "From taking a command to its answer.", ["verb"], buckets=LATENCY_BUCKETS_S
)
SETTINGS_REFUSED: Final = Gauge(
    "mailbus_settings_refused",
    "1 while the settings file, or an account in NATS, cannot be taken as it is written, and what was before holds.",
)
BEHIND: Final = Gauge("mailbus_behind", "Mails that are there and not announced yet, by their UIDs: so many at most.")
NATS_CONNECTED: Final = Gauge("mailbus_nats_connected", "1 while NATS is connected.")
STAND_INS: Final = Gauge("mailbus_stand_ins", "Accounts whose INBOX is read by POP3 because IMAP cannot be reached.")
# protocol: imap, pop3, smtp, nats; reason: transient, new
RECONNECTS: Final = Counter("mailbus_reconnects_total", "Connections made anew.", ["protocol", "reason"])
# result: renewed, refused, failed
TOKENS: Final = Counter("mailbus_tokens_total", "OAuth 2 tokens asked for, by how it ended.", ["result"])
LOOP_LAG_SECONDS: Final = Histogram(
    "mailbus_loop_lag_seconds", "How late the event loop wakes.", buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)
)

# `increase` does not see the first count of a series that was not there before: what alerts ask for begins at 0.
for _reason in ("message", "request", "unknown-account", "poison"):
    DEAD.labels(reason=_reason)
AFTER.labels(result="given_up")
SENT_COPIES.labels(result="refused")
RECIPIENTS.labels(outcome="uncertain")
