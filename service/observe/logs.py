"""Events → lines on standard error: for people on a terminal, JSON otherwise.

A log line is a fixed event name with fields; no sentence is built from values. Values under a
secret's key are never written, whatever type they have, and no address that a server named.
"""

import logging
import re
import sys
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

SECRET_KEYS: Final = frozenset({"password", "token", "secret", "client_secret", "refresh_token", "nkey_seed", "creds"})
# What servers say is among these, and they may name whom they like.
WORDS_KEYS: Final = frozenset({"error", "text", "why"})
HIDDEN: Final = "***"
# RFC 5321 4.5.3.1: as long as the parts of an address may be.
_ADDRESS: Final = re.compile(r"[^\s<>@]{1,64}@[^\s<>@]{1,255}")

log: Final[Any] = structlog.get_logger()


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in event.keys() & SECRET_KEYS:
        event[key] = HIDDEN
    for key in event.keys() & WORDS_KEYS:
        if isinstance(event[key], str):
            event[key] = _ADDRESS.sub(HIDDEN, event[key])
    return event


def set_up_logs(level: str = "info", form: Literal["auto", "console", "json"] = "auto") -> None:
    """Configure structlog, and the standard library's loggers of our libraries, once for the process."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    last: list[structlog.typing.Processor] = (
        [
            # The default shows all local variables: passwords, mails.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log wire lines with credentials at debug level: only their warnings are let through.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
