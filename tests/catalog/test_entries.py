"""Secrets of accounts that lie in NATS: sealed, opened, with keys that change."""

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet

from service.catalog import Sealer
from service.catalog.entries import Entry, load_entry, opened, resealed, sealed
from service.errors import Permanent

KEYS = [Fernet.generate_key().decode() for _ in range(2)]
ACCOUNT: dict[str, Any] = {
    "id": "a",
    "password": "hunter2",
    "incoming": {"imap": {"host": "h"}, "password": {"env": "NAME"}},
    "outgoing": {
        "smtp": {"host": "h"},
        "oauth2": {"client_id": "me", "client_secret": "hunter2", "refresh_token": "hunter2"},
    },
}


@pytest.mark.fault("G04")
def test_no_secret_is_to_be_seen_and_all_come_back() -> None:
    sealer = Sealer(KEYS)
    hidden = sealed(ACCOUNT, sealer)
    assert "hunter2" not in json.dumps(hidden)
    assert hidden["incoming"] == ACCOUNT["incoming"]  # a name of a variable is no secret
    assert opened(hidden, sealer) == ACCOUNT


def test_passwords_of_further_relays_are_sealed_too() -> None:
    relays = [{"host": "two.example", "username": "u", "password": "S3cret-2"}, {"host": "x", "login": False}]
    account = {"id": "a", "outgoing": {"smtp": {"host": "one.example"}, "relays": relays}}
    hidden = sealed(account, Sealer(KEYS))
    assert "S3cret-2" not in str(hidden)
    assert opened(hidden, Sealer(KEYS)) == account


@pytest.mark.fault("F10")
def test_a_new_key_seals_and_the_old_one_opens_until_it_goes() -> None:
    old, both, new = Sealer(KEYS[:1]), Sealer(KEYS[::-1]), Sealer(KEYS[1:])
    hidden = sealed(ACCOUNT, old)
    assert opened(hidden, both) == ACCOUNT
    with pytest.raises(Permanent, match="not here"):
        opened(hidden, new)
    assert opened(sealed(opened(hidden, both), both), new) == ACCOUNT


@pytest.mark.fault("F10")
def test_sealed_anew_the_old_key_may_go_and_what_the_first_key_sealed_stays_as_it_is() -> None:
    old, both, new = Sealer(KEYS[:1]), Sealer(KEYS[::-1]), Sealer(KEYS[1:])
    renewed = resealed(sealed(ACCOUNT, old), both)
    assert opened(renewed, new) == ACCOUNT
    assert resealed(renewed, both) == renewed
    with pytest.raises(Permanent, match="not here"):
        resealed(sealed(ACCOUNT, old), new)


def test_what_was_changed_is_not_opened() -> None:
    sealer = Sealer(KEYS)
    hidden = sealed(ACCOUNT, sealer)
    token = hidden["password"]["sealed"]
    hidden["password"] = {"sealed": token[:-4] + "AAA="}
    with pytest.raises(Permanent):
        opened(hidden, sealer)


def test_without_a_key_nothing_is_sealed_and_names_pass() -> None:
    sealer = Sealer([])
    with pytest.raises(Permanent, match="no key"):
        sealed(ACCOUNT, sealer)
    named = {"id": "a", "password": {"env": "NAME"}}
    assert sealed(named, sealer) == named


def test_a_value_that_is_no_entry_is_none() -> None:
    assert load_entry(b"{") is None
    assert load_entry(b'{"account": 7}') is None
    assert load_entry(b'{"paused": true}') == Entry(None, paused=True)


@pytest.mark.parametrize("value", [b"no json", b'{"account": {"id": "\xff"}}', b'{"account": ' + b'{"a":' * 100_000])
def test_a_value_that_cannot_be_read_is_no_entry(value: bytes) -> None:
    assert load_entry(value) is None
