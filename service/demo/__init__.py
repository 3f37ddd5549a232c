"""Nothing but what pip installs → servers of its own and a guided run of the whole loop.

servers.py is NATS, IMAP and SMTP on loopback; show.py puts events before a person's eyes; run.py tells the story:
a mail arrives, its event is read, a reply is sent and delivered, its status is read. Used by the command line alone.
"""

from service.demo.run import run_demo

__all__ = ["run_demo"]
