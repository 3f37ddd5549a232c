"""Structs ⇄ JSON bytes."""

from typing import Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """JSON in UTF-8. `value` is made of the contract's structs, so it always encodes."""
    return _ENCODER.encode(value)
