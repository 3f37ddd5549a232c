"""Raw header fields → the forms in which `get` gives them. Pure. RFC 8621 sections 4.1.2 and 4.1.3."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeAlias

from service.contract import EmailAddress, EmailAddressGroup, EmailHeader, HeaderForm, HeaderProperty
from service.mime.addresses import parse_addresses, parse_groups
from service.mime.dates import parse_date
from service.mime.fields import message_ids
from service.mime.limits import MimeLimits
from service.mime.params import without_comments
from service.mime.words import decode_text

_URL: Final = re.compile(r"<([^<>]*)>")
_WHITE: Final = re.compile(r"\s+")

Shown: TypeAlias = "str | list[str] | list[EmailAddress] | list[EmailAddressGroup] | datetime | None"


def header_form(fields: Sequence[EmailHeader], wanted: HeaderProperty, limits: MimeLimits) -> "Shown | list[Shown]":
    """The last field of a name, null where there is none; or all of them, in their order."""
    values = [field.value for field in fields if field.name.lower() == wanted.name]
    if wanted.every:
        return [_in_form(value, wanted.form, limits) for value in values]
    return _in_form(values[-1], wanted.form, limits) if values else None


def _in_form(value: str, form: HeaderForm, limits: MimeLimits) -> Shown:
    if form is HeaderForm.RAW:
        return value
    value = value[: limits.value_chars]
    if form is HeaderForm.TEXT:
        return decode_text(value, words=limits.encoded_words)
    if form is HeaderForm.ADDRESSES:
        return parse_addresses(value, most=limits.recipients, words=limits.encoded_words).list
    if form is HeaderForm.GROUPS:
        return parse_groups(value, most=limits.recipients, words=limits.encoded_words)
    if form is HeaderForm.MESSAGE_IDS:
        return message_ids(value, limits, {})
    if form is HeaderForm.DATE:
        return parse_date(value)
    # RFC 2369 2: URLs in angle brackets, white space within them has no meaning, comments are for people.
    return [_WHITE.sub("", one) for one in _URL.findall(without_comments(value))] or None
