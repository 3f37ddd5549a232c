"""What is wrong with a command, as the answer's error: code, one line, and every problem as JSON in the body."""

from collections.abc import Sequence

from service.bus import ServiceError
from service.contract import Problem, Problems, RequestProblems, bounded, encode
from service.errors import MailbusError, Permanent
from service.imap import NotConnected, Refused, Unanswered


def error(code: int, problems: Sequence[Problem]) -> ServiceError:
    """The error of one or more problems, as many as an answer holds; the first is the header's line."""
    said = bounded(problems)
    return ServiceError(code, str(said[0]), body=encode(Problems(said)))


def problem(code: int, field: str, message: str) -> ServiceError:
    """The error of one problem."""
    return error(code, [Problem(field, message)])


def answer_of(verdict: MailbusError) -> ServiceError:
    """What went wrong with a command → its answer."""
    said = f"{verdict.what}: {verdict.remedy}" if verdict.remedy else verdict.what
    match verdict:
        case ServiceError():
            return verdict
        case RequestProblems():
            return error(400, verdict.problems)
        case Unanswered():
            return problem(504, "", said)
        case NotConnected():
            return problem(503, "", said)
        case Refused(missing=True):
            return problem(404, "mailbox", said)
        case Refused(later=True):
            return problem(503, "", said)
        case Refused():
            return problem(400, "", said)
        case Permanent():
            # Of the encoder: `where` is the field.
            return problem(400, verdict.where, said)
        case _:
            return problem(503, "", said)
