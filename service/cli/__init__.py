"""Words → calls. Prints and decides nothing: run.py starts the service, the others speak to one that runs.

Exit codes: 0 success, 2 usage, 78 (EX_CONFIG) wrong settings or a NATS that cannot serve, 1 otherwise.
"""

from service.cli.app import main

__all__ = ["main"]
