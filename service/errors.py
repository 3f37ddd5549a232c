"""Everything that can go wrong, as four verdicts.

    MailbusError
    ├── Transient      try again later
    │   ├── PeerError  the other side broke the protocol: discard the connection first
    │   └── Inward     NATS, or a limit of ours, is why
    ├── Permanent      fails the same way until someone changes something
    │   ├── AuthRefused  the credentials are refused: slow pace, providers lock accounts
    │   └── Halted     the log, or mailbus itself, is why
    ├── Uncertain      it may have happened: follow the policy, never assume
    └── Superseded     another replica writes here now: stop quietly

Supervision matches on these and on nothing else; any other exception is a bug.
A library's exception is translated once, in the file that imports the library.
A process says its verdict to whoever started it by its exit code.
"""

from typing import Final

EX_OK: Final = 0
EX_FAILURE: Final = 1
# sysexits.h: settings or a NATS that somebody must mend first.
EX_CONFIG: Final = 78


class MailbusError(Exception):
    """What went wrong, where, and the remedy: shown as `what [where]: remedy`. Holds no secret."""

    # Whether it says nothing of a mail server: NATS or mailbus is why.
    is_ours = False

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        shown = f"{self.what} [{self.where}]" if self.where else self.what
        return f"{shown}: {self.remedy}" if self.remedy else shown


class Transient(MailbusError):
    """Try again later; not before `retry_after_s` where the other side said so."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.retry_after_s = retry_after_s


class PeerError(Transient):
    """The other side broke its protocol. The connection is out of step: discard it, reconnect."""


class Inward(Transient):
    """Nothing that a mail server did: NATS does not take or give for now, or a limit of ours is reached."""

    is_ours = True


class Permanent(MailbusError):
    """Fails the same way until someone changes something."""


class AuthRefused(Permanent):
    """The server refused the credentials."""


class Halted(Permanent):
    """Nothing that a mail server did: the log is not for this mailbus to go on with, or mailbus has a bug."""

    is_ours = True


class Uncertain(MailbusError):
    """It may have happened. Follow the policy; never assume."""


class Superseded(MailbusError):
    """Another replica writes here now. Stop quietly."""


def verdict_of(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception of a task group that decides: a bug before a verdict, a verdict before a cancellation."""
    leaves: list[BaseException] = []
    groups = [failed]
    while groups:
        for error in groups.pop().exceptions:
            if isinstance(error, BaseExceptionGroup):
                groups.append(error)
            else:
                leaves.append(error)
    bugs = [error for error in leaves if not isinstance(error, MailbusError)]
    return (bugs or leaves)[0]
