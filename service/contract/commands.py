"""Shapes of the commands on `mail.cmd.<account>.<verb>`. Plain data."""

from enum import StrEnum

import msgspec

from service.contract.requests import Problem


class Verb(StrEnum):
    """What the service answers."""

    SEND = "send"


class SendAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The request is in `MAIL_OUT` under this id."""

    id: str


class Problems(msgspec.Struct, frozen=True):
    """The body of an error answer; its headers are `Nats-Service-Error` and `Nats-Service-Error-Code`."""

    problems: list[Problem]
