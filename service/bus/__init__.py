"""NATS JetStream as mailbus uses it: streams, fenced commits, blobs, keys, work queues. Mail-free.

connection.py opens a Bus (credentials.py reads what it logs in with); streams.py makes and checks what stands on the
server; batch.py publishes all or nothing; log.py commits with a fence, replay.py reads a log; blobs.py stores content
once; kv.py compares and sets, watch.py tells of changes; queue.py pulls, acknowledges, schedules; contents.py looks
through whole streams, and erases; micro.py answers requests; permissions.py is who may do what, rights.py tries it,
refusals.py hears what NATS does not let one do; errors.py turns NATS's errors into verdicts.
"""

from service.bus.batch import Staged
from service.bus.blobs import BlobStore
from service.bus.connection import Answer, Bus, open_bus
from service.bus.contents import Contents
from service.bus.errors import CommitUnknown, Conflict, FenceRefused, MessageTooLarge, NobodyThere
from service.bus.follow import Followed
from service.bus.frames import OutMessage
from service.bus.kv import Entry, KeyValue
from service.bus.log import EventLog, StreamBounds, Tail
from service.bus.micro import Handler, ServiceError, failure_of, serve
from service.bus.options import NatsOptions, StreamOptions
from service.bus.permissions import (
    mailbus_permissions,
    reader_permissions,
    requester_permissions,
    uploader_permissions,
)
from service.bus.queue import ACK_WAIT_S, Job, Puller, WorkQueue
from service.bus.replay import Replayed
from service.bus.streams import wanted_streams
from service.bus.watch import KeyChange

__all__ = [
    "ACK_WAIT_S",
    "Answer",
    "BlobStore",
    "Bus",
    "CommitUnknown",
    "Conflict",
    "Contents",
    "Entry",
    "EventLog",
    "FenceRefused",
    "Followed",
    "Handler",
    "Job",
    "KeyChange",
    "KeyValue",
    "MessageTooLarge",
    "NatsOptions",
    "NobodyThere",
    "OutMessage",
    "Puller",
    "Replayed",
    "ServiceError",
    "Staged",
    "StreamBounds",
    "StreamOptions",
    "Tail",
    "WorkQueue",
    "failure_of",
    "mailbus_permissions",
    "open_bus",
    "reader_permissions",
    "requester_permissions",
    "serve",
    "uploader_permissions",
    "wanted_streams",
]
