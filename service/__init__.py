"""mailbus: mailboxes become events on NATS JetStream, requests on the bus become mail.

The map of rooms, lowest floor first; a file imports from floors below and from its own room:

0  errors.py clock.py observe/   verdicts; time and chance; log set-up, metric objects, stop points
1  contract/                     what crosses the bus: subjects, events, requests, statuses, commands
2  imap/ smtp/                   protocols: pure wire and state, one file of I/O
   bus/                          streams, fenced batches, blobs, buckets, micro service
   mime/                         bytes ⇄ Email, pure
3  parsing/                      a page of messages → events and blobs, in a child process where there are many
4  ingest/ outbound/ commands/   mailbox → events; request → mail; a file a verb
5  settings/ admin/ fleet/        one YAML file → types; metrics, health, status page; presence, supervision
6  build.py build_commands.py    builds the rooms and hands them to each other
   app.py                        one process's life
   snapshot.py check.py          what the status page shows; tries what settings name
7  demo/                         servers of its own and a guided run
8  cli/ __main__.py              words → calls; prints; decides nothing
"""

from typing import Final

__version__: Final = "0.1.0"
