"""What of `outgoing` has rules of its own: DKIM, where bounces go. Used by model.py."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainValidator, field_validator
from pydantic.json_schema import WithJsonSchema

from service.contract import ascii_domain, is_address
from service.outbound import ANY, DkimKey, DkimSigner, read_dkim_key
from service.settings.files import Named, NamedFile
from service.settings.part import Part
from service.settings.values import DURATION, Host, duration, number, text, unshown, wrong

KEY_LIMIT_BYTES: Final = 64 * 1024
# RFC 6376 3.1: labels of a name.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SELECTOR: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def _selector(value: Any) -> str:
    if _SELECTOR.fullmatch(text(value)) is None:
        raise wrong("write the name under which the DNS has the public key, such as mail2026")
    return str(value)


# RFC 5321 4.5.3.1.1: a local part has 64 octets, and the proof up to 55 of them; what stands round it must part it.
_VERP: Final = re.compile(
    r"(?=[^@]{2,11}@)(?:[A-Za-z0-9._=+-]*[._=+-])?\{\}(?:[._=+-][A-Za-z0-9._=+-]*)?@[A-Za-z0-9.-]{1,255}"
)


def _verp(value: Any) -> str:
    if text(value) and _VERP.fullmatch(value) is None:
        raise wrong("write an address with {} in it, after at most 9 characters, such as bounces+{}@example.com")
    return str(value)


Verp = Annotated[str, BeforeValidator(unshown(_verp)), WithJsonSchema({"type": "string"})]


def interval(value: Any) -> timedelta:
    """A rate, such as 30/1m → from one to the next."""
    count, slash, period = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not slash or not re.fullmatch(r"[1-9][0-9]{0,8}", count) or DURATION.fullmatch(period) is None:
        raise wrong("write how many in which time, such as 30/1m or 10000/1d")
    return duration(period) / int(count)


Rate = Annotated[
    timedelta,
    PlainValidator(interval),
    WithJsonSchema({"type": "string", "pattern": f"^[1-9][0-9]{{0,8}}/{DURATION.pattern}$"}),
]


def _domain(value: Any) -> str:
    """A recipient's domain, as it stands on the wire."""
    if text(value) == ANY:
        return ANY
    try:
        address = ascii_domain(f"x@{value}").lower()
    except ValueError:
        address = ""
    if not is_address(address):
        raise wrong("write a domain such as example.org, or `*` for every other one")
    return address.partition("@")[2]


class DomainSettings(Part):
    """How fast mails go to the recipients of a domain."""

    rate: Rate | None = Field(default=None, description="Mails in a time at the most, such as `30/1m`")
    connections: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] | None = Field(
        default=None, description="Mails under way at once at the most, each on a connection of its own"
    )


Domain = Annotated[str, BeforeValidator(_domain)]


class DkimSettings(Part):
    """A DKIM signature; several may be made of one mail, with keys of different kinds."""

    domain: Host = Field(description="The domain that signs; its DNS has the public key")
    selector: Annotated[str, BeforeValidator(_selector), WithJsonSchema({"type": "string"})] = Field(
        description="The key's name: `<selector>._domainkey.<domain>`"
    )
    key: Named = Field(description="File with the private key in PEM, RSA or Ed25519")

    @field_validator("key")
    @classmethod
    @unshown
    def _is_key(cls, key: NamedFile) -> NamedFile:
        try:
            _read(key)
        except ValueError as exc:
            raise wrong(f"name a file with an RSA or Ed25519 key in PEM: {exc}") from None
        return key

    def signer(self) -> DkimSigner:
        """What signs."""
        return DkimSigner(self.domain, self.selector, _read(self.key))


@lru_cache(16_384)
def _read(file: NamedFile) -> DkimKey:
    """Looking whether an RSA key holds takes 40 ms, of 4096 bits 330: once for each, and not at every reload, where
    thousands of domains have their own. Raises ValueError."""
    return read_dkim_key(file.content[:KEY_LIMIT_BYTES].decode("ascii", "replace"))
