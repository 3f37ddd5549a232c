"""Shapes of the commands on `mail.cmd.<account>.<verb>`. Plain data."""

from enum import StrEnum

import msgspec


class Verb(StrEnum):
    """What the service answers."""

    SEND = "send"


class SendAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The request is in `MAIL_OUT` under this id."""

    id: str
