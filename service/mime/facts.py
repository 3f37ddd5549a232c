"""Attachments and their bytes → what is known of them that the mail does not say. Pure, linear."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import UNSET

from service.contract import EmailBodyPart, FileFacts
from service.mime.archives import is_encrypted
from service.mime.kinds import is_other, type_of
from service.mime.names import safe_name

_ARCHIVES: Final = frozenset(("application/zip", "application/x-7z-compressed", "application/vnd.rar"))


def facts(attachments: Sequence[EmailBodyPart], blobs: Mapping[str, bytes]) -> list[FileFacts]:
    """Of those attachments alone of which there is something to say."""
    found: list[FileFacts] = []
    for part in attachments:
        data = blobs.get(part.part_id or "")
        if data is None:
            continue
        kind = type_of(data)
        name = safe_name(part.name) if part.name else part.name
        locked = is_encrypted(data, kind)
        if locked is False and kind not in _ARCHIVES:
            locked = None  # a document is open: nobody expects it to be otherwise
        other = is_other(part.type, kind)
        if other or locked is not None or name != part.name:
            found.append(
                FileFacts(
                    part.part_id or "",
                    type=kind if other else UNSET,
                    name=UNSET if name is None or name == part.name else name,
                    encrypted=UNSET if locked is None else locked,
                )
            )
    return found
