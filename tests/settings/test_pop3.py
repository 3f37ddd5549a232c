"""POP3 in the settings: what it has, and what it does not have."""

from datetime import timedelta

import pytest

from service.build.pop3 import pop3_options
from service.contract import After, AfterKind, Security
from service.parsing import Raw
from tests.settings.conftest import Load, Problems


def account(incoming: str, more: str = "") -> str:
    return f"accounts: [{{id: a, address: a@example.com, password: p, {more} incoming: {incoming}}}]"


def test_a_host_is_all_there_is_to_write(load: Load) -> None:
    incoming = load(account("{pop3: {host: pop.example.com}}")).accounts[0].incoming
    assert incoming is not None
    assert incoming.pop3 is not None
    assert (incoming.pop3.host, incoming.pop3.port, incoming.pop3.security) == ("pop.example.com", 995, Security.TLS)
    assert incoming.imap is None
    assert incoming.poll == timedelta(seconds=60)


@pytest.mark.parametrize(("security", "port"), [("tls", 995), ("starttls", 110), ("none", 110)])
def test_the_port_goes_with_the_protection(load: Load, security: str, port: int) -> None:
    incoming = load(account(f"{{pop3: {{host: h, security: {security}}}}}")).accounts[0].incoming
    assert incoming is not None
    assert incoming.pop3 is not None
    assert incoming.pop3.port == port


def test_a_preset_has_the_host_and_its_imap_is_left_out(load: Load) -> None:
    incoming = load(account("{pop3: {}}", "preset: gmail,")).accounts[0].incoming
    assert incoming is not None
    assert incoming.pop3 is not None
    assert incoming.pop3.host == "pop.gmail.com"
    assert incoming.imap is None


def test_beside_imap_it_stands_in_after_a_while(load: Load) -> None:
    incoming = load(account("{imap: {}, pop3: {stand_in: 10m}}", "preset: gmail,")).accounts[0].incoming
    assert incoming is not None
    assert incoming.imap is not None
    assert incoming.pop3 is not None
    assert (incoming.imap.host, incoming.pop3.host) == ("imap.gmail.com", "pop.gmail.com")
    assert incoming.pop3.stand_in == timedelta(minutes=10)


def test_a_login_may_take_as_long_as_any_answer(load: Load) -> None:
    settings = load(account("{pop3: {host: h, reply: 5m}}"))
    one = settings.accounts[0]
    assert one.incoming is not None
    assert one.incoming.pop3 is not None
    options = pop3_options(settings, one, one.incoming, one.incoming.pop3, tokens=None)
    assert options.connect_s > options.reply_s == 300.0


def test_mail_may_be_kept_for_days(load: Load) -> None:
    incoming = load(account("{pop3: {host: h}, after: {keep_days: 14}}")).accounts[0].incoming
    assert incoming is not None
    assert incoming.after == After(AfterKind.DELETE, keep_days=14)
    assert incoming.raw is Raw.ALWAYS


@pytest.mark.parametrize(
    ("incoming", "problem"),
    [
        ("{pop3: {host: h}, after: seen}", "after: POP3 cannot do seen: write nothing, delete, or {keep_days: N}"),
        ("{pop3: {host: h}, after: {move: x}}", "after: POP3 cannot do move: write nothing, delete, or {keep_days: N}"),
        ("{pop3: {host: h}, after: {keep_days: 0}}", "after: keep_days must be between 1 and 3650"),
        (
            "{pop3: {host: h}, after: {keep_days: 30}}",
            "after: keep_days must be less than streams.in.max_age (30d): mail would stay",
        ),
        (
            "{imap: {host: h}, after: {keep_days: 3}}",
            "after: keep_days is for pop3: by imap write delete, with after_delay",
        ),
        (
            "{pop3: {host: h}, mailboxes: [INBOX, Sent]}",
            "mailboxes: POP3 has INBOX alone: leave it out, or read by imap",
        ),
        ("{pop3: {}}", "pop3.host: required"),
        (
            "{imap: {host: h}, pop3: {host: h}, mailboxes: [Sent]}",
            "pop3: stands in for INBOX alone, which is not among mailboxes: leave it out",
        ),
        ("{pop3: {host: h, idle: 4m}}", "pop3.idle: unknown key: there is host, port"),
    ],
)
def test_what_pop3_does_not_have_is_refused_with_what_would_do(problems: Problems, incoming: str, problem: str) -> None:
    found = problems(account(incoming))
    assert found[0].startswith(f"accounts[0].incoming.{problem}")


def test_a_token_never_goes_in_the_clear(problems: Problems) -> None:
    found = problems(
        "accounts: [{id: a, address: a@example.com, oauth2: {grant: client_credentials, token_url: 'https://t/',"
        " client_id: c, client_secret: s}, incoming: {pop3: {host: h, security: none}}}]"
    )
    assert any("incoming.pop3.security: none would send tokens in the clear" in one for one in found)
