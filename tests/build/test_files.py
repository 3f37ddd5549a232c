"""Authorities and keys that an account names: read with its settings, and by nobody after that."""

import os
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from service.aside import aside
from service.build import next_relays, pop3_options, session_options, smtp_options
from service.clock import SystemClock
from service.errors import Permanent
from service.oauth import OAuthOptions
from service.reach import Reach
from service.secure import client_context
from service.settings import NamedFile, load_settings
from service.tokens import account_tokens, oauth_options
from service.turns import Turns

SETTINGS = """
accounts:
  - id: a
    address: a@example.com
    oauth2: {grant: jwt_bearer, key: key.pem, scope: mail, token_url: https://x.example/token, client_id: c, ca: ca.pem}
    incoming:
      imap: {host: imap.example.com, ca: ca.pem}
      pop3: {host: pop.example.com, ca: ca.pem}
    outgoing:
      smtp: {host: smtp.example.com, ca: ca.pem}
      relays: [{host: second.example.com, username: a, password: x, ca: ca.pem}]
      dkim: [{domain: example.com, selector: one, key: dkim.pem}]
"""


def pem() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.fault("F10")
async def test_an_account_begins_though_the_files_that_it_names_have_fallen_silent_since(tmp_path: Path) -> None:
    files = {"ca.pem": trustme.CA().cert_pem.bytes(), "key.pem": pem(), "dkim.pem": pem()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "mailbus.yaml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "mailbus.yaml")
    for name in files:
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    (account,) = settings.accounts

    def begin() -> OAuthOptions:
        incoming, outgoing, reach = account.incoming, account.outgoing, Reach()
        assert incoming is not None
        assert outgoing is not None
        assert incoming.oauth2 is not None
        assert incoming.pop3 is not None
        account_tokens(account, SystemClock(), reach)
        session_options(settings, account, incoming, tokens=None, losses=Turns())
        pop3_options(settings, account, incoming, incoming.pop3, tokens=None)
        smtp_options(account, outgoing, tokens=None, reach=reach)
        next_relays(account, outgoing, reach=reach)
        assert [one.signer().domain for one in outgoing.dkim] == ["example.com"]
        return oauth_options(account, incoming.oauth2, "a", reach)

    made = await aside(begin, where="the account", kind="accounts")
    assert made.tls is not None
    assert made.key is not None


def test_authorities_are_found_between_whatever_else_is_written() -> None:
    one, two = (trustme.CA().cert_pem.bytes() for _ in range(2))
    found = client_context(NamedFile("ca.pem", "# für uns\n".encode() + one + b"\nand\n" + two)).get_ca_certs()
    assert len(found) == 2


@pytest.mark.parametrize("content", [b"", "ä".encode(), b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_a_file_without_authorities_is_refused_and_never_means_those_of_the_system(content: bytes) -> None:
    with pytest.raises(Permanent, match=r"no certificates can be read from ca\.pem"):
        client_context(NamedFile("ca.pem", content))


def test_certificates_in_openssls_own_form_are_refused_and_named() -> None:
    content = trustme.CA().cert_pem.bytes().replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
    with pytest.raises(Permanent, match="openssl x509 -in FILE"):
        client_context(NamedFile("ca.pem", content))


def test_what_a_file_holds_is_not_shown() -> None:
    assert "secret" not in repr(NamedFile("key.pem", b"secret"))
