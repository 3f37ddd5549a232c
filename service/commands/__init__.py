"""Commands on `mail.cmd.<account>.<verb>`: a NATS micro service, a file a verb.

serve.py listens and finds the account; send.py checks a request, publishes it and answers with its id.
"""

from service.commands.serve import serve_commands

__all__ = ["serve_commands"]
