"""mailbus: mailboxes become events on NATS JetStream, requests on the bus become mail.

The map of rooms, lowest floor first; a file imports from floors below and from its own room:

0  errors.py clock.py observe/   verdicts; time and chance; log set-up, metric objects, stop points
   budget.py                     how many bytes of mail the process may hold at once
   lookup.py                     a host's name → its addresses
   aside.py                      work with files → what it gives, from threads of its own
   tasks.py turns.py             tasks with parents; what comes for thousands at once, a few at a time
1  contract/                     what crosses the bus: subjects, events, requests, statuses, commands
   login/                        what protocols share of logging in: tokens in SASL, one wrong password at a time
   reach.py                      a host's name → a socket, at an address that may be reached
2  imap/ pop3/ smtp/             protocols: pure wire and state, one file of I/O
   bus/                          streams, fenced batches, blobs, buckets, micro service
   mime/                         bytes ⇄ Email, pure
   meaning/                      an Email → its kind, reports of delivery, calendar, list, verdicts, pure
   oauth/                        OAuth 2: settings → access tokens that are good for now
3  parsing/                      a page of messages → events and blobs, in a child process where there are many
4  ingest/ outbound/ commands/   mailbox → events; request → mail; a file a verb
   boxes/                        many mailboxes, few connections: which are followed, whose turn it is
   after/                        what is done to a mail once its event is confirmed
5  settings/ admin/ fleet/        one YAML file → types; metrics, health, status page; presence, supervision
6  build/                         puts the rooms' parts together, as settings say
   app.py                        one process's life
   secure.py tokens.py           TLS contexts and token sources, as settings say
   discovery/                    a mail address → its servers, for whoever asks on the command line
   catalog/ reload.py    all accounts: those added over the bus, the settings file while it changes
   erase/                what an address or a mail left on the bus → gone
   snapshot.py check.py          what the status page shows; tries what settings name
7  demo/                         servers of its own and a guided run
8  cli/ __main__.py              words → calls; prints; decides nothing
"""

from typing import Final

__version__: Final = "0.1.0"
