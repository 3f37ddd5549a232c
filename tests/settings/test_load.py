"""What a settings file means: defaults, presets, credentials, the environment."""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.contract import After, AfterKind, Choice, ChoiceKind, Extra, Security
from service.parsing import Raw
from service.settings import PRESETS, Secret, load_settings
from tests.settings.conftest import Load, Problems

WHOLE = """
nats:
  servers: [nats://a.example:4222, "tls://[::1]:4222"]
  user: mailbus
  password: {env: NATS_PASSWORD}
  prefix: post
  replicas: 3
http: {listen: "[::1]:0"}
instance: pod-0.mail.svc
log: {level: debug, format: json}
streams: {in: {max_age: 7d}, status: {max_age: 36h}, dead: {max_age: null}, max_consumers: 100}
limits: {inline: 1KiB, message: 10MiB, memory: 1GiB}
accounts:
  - id: support
    address: support@example.com
    username: login
    password: {file: password.txt}
    incoming:
      imap: {host: imap.example.com, security: starttls, idle: 9m, reply: 500ms}
      mailboxes: [inbox, Entwürfe, {name: "a * b"}, "Lists/*", \\Archive]
      exclude: ["%/Old", \\Junk]
      initial: {since: 2026-01-01}
      poll: 90s
      raw: always
      extras: [reply, text]
      after: {move: inbox}
      after_delay: 1h
    outgoing:
      username: relay
      password: other
      smtp: {host: 192.0.2.1, port: 2525, security: none, login: true}
      uncertain: hold
      retry: {first: 10s, factor: 1.5, max: 1h}
      expires: 2d
      window: 60d
      redirect: staging@example.com
      verp: bounces+{}@example.com
"""


def test_without_a_file_there_are_sensible_defaults() -> None:
    settings = load_settings(None)
    assert settings.accounts == ()
    assert settings.nats.servers == ["nats://127.0.0.1:4222"]
    assert settings.http.listen == ("127.0.0.1", 8080)
    assert settings.instance == socket.gethostname().replace(".", "-")[:64]
    assert settings.streams.in_.max_age == timedelta(days=30)
    assert settings.limits.memory == 512 * 1024 * 1024


def test_an_empty_file_is_no_file(load: Load) -> None:
    assert load("# nothing yet\n") == load_settings(None)


def test_every_key_is_read(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "geheim")
    (tmp_path / "password.txt").write_text("p w\n")
    settings = load(WHOLE.replace("500ms", "1500ms"))
    assert settings.nats.password == Secret("geheim")
    assert (settings.nats.prefix, settings.nats.replicas) == ("post", 3)
    assert settings.http.listen == ("::1", 0)
    assert str(settings.http.listen) == "[::1]:0"
    assert settings.instance == "pod-0-mail-svc"
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert settings.streams.status.max_age == timedelta(hours=36)
    assert settings.streams.dead.max_age is None
    assert (settings.limits.inline, settings.limits.memory) == (1024, 1024**3)
    (account,) = settings.accounts
    incoming, outgoing = account.incoming, account.outgoing
    assert incoming is not None
    assert outgoing is not None
    assert (incoming.imap.port, incoming.imap.security) == (143, Security.STARTTLS)
    assert (incoming.imap.idle, incoming.imap.reply) == (timedelta(minutes=9), timedelta(seconds=1.5))
    names = [Choice(ChoiceKind.NAME, name) for name in ("INBOX", "Entwürfe", "a * b")]
    assert incoming.mailboxes == (*names, Choice(ChoiceKind.PATTERN, "Lists/*"), Choice(ChoiceKind.ROLE, "archive"))
    assert incoming.exclude == (Choice(ChoiceKind.PATTERN, "%/Old"), Choice(ChoiceKind.ROLE, "junk"))
    assert incoming.model_dump()["mailboxes"] == ["INBOX", "Entwürfe", {"name": "a * b"}, "Lists/*", "\\Archive"]
    assert incoming.initial == datetime(2026, 1, 1, tzinfo=UTC)
    assert incoming.raw is Raw.ALWAYS
    assert incoming.extras == (Extra.REPLY, Extra.TEXT)
    assert (incoming.after, incoming.after_delay) == (After(AfterKind.MOVE, "INBOX"), timedelta(hours=1))
    assert (incoming.username, incoming.password.reveal()) == ("login", "p w")
    assert (outgoing.username, outgoing.password.reveal()) == ("relay", "other")
    assert (outgoing.smtp.host, outgoing.smtp.port, outgoing.smtp.security) == ("192.0.2.1", 2525, Security.NONE)
    assert (outgoing.uncertain, outgoing.redirect) == ("hold", "staging@example.com")
    assert outgoing.verp == "bounces+{}@example.com"
    assert (outgoing.retry.first, outgoing.retry.factor) == (timedelta(seconds=10), 1.5)
    assert (outgoing.expires, outgoing.window) == (timedelta(days=2), timedelta(days=60))


@pytest.mark.parametrize(
    ("security", "imap", "smtp"), [("tls", 993, 465), ("starttls", 143, 587), ("none", 143, 25), (None, 993, 465)]
)
def test_the_port_goes_with_the_protection(load: Load, security: str | None, imap: int, smtp: int) -> None:
    more = f", security: {security}" if security else ""
    settings = load(f"""
        accounts:
          - id: a
            address: a@example.com
            password: p
            incoming: {{imap: {{host: h{more}}}}}
            outgoing: {{smtp: {{host: h{more}}}}}
        """)
    incoming, outgoing = settings.accounts[0].incoming, settings.accounts[0].outgoing
    assert incoming is not None
    assert outgoing is not None
    assert (incoming.imap.port, outgoing.smtp.port) == (imap, smtp)


PROVIDERS = [name for name, preset in PRESETS.items() if preset.fills]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_preset_fills_in_both_directions(load: Load, name: str) -> None:
    account = load(f"accounts: [{{id: a, address: a@example.com, password: p, preset: {name}}}]").accounts[0]
    assert account.incoming is not None
    assert account.outgoing is not None
    assert account.incoming.imap.host == PRESETS[name].fills["incoming"]["imap"]["host"]
    assert account.incoming.imap.security is not Security.NONE
    assert account.outgoing.smtp.security is not Security.NONE
    assert account.incoming.username == account.outgoing.username == "a@example.com"
    # Gmail ends what is idle for 10 minutes.
    assert account.incoming.imap.idle <= timedelta(minutes=9)
    assert account.incoming.imap.connections == (PRESETS[name].connections or 3)


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in PROVIDERS])
def test_a_preset_of_a_server_program_wants_its_host_and_has_its_limits(load: Load, name: str) -> None:
    account = load(
        f"accounts: [{{id: a, address: a@example.com, password: p, preset: {name}, incoming: {{imap: {{host: h}}}}}}]"
    ).accounts[0]
    assert account.incoming is not None
    assert account.outgoing is None
    assert account.incoming.imap.connections == (PRESETS[name].connections or 3)


def test_what_a_provider_does_not_allow_is_refused(load: Load, problems: Problems) -> None:
    text = "accounts: [{id: a, address: a@example.com, password: p, preset: gmail, incoming: {imap: {%s}}}]"
    assert problems(text % "idle: 10m") == [
        "accounts[0].incoming.imap.idle: must be less than 10m: Gmail ends what is silent for that long"
    ]
    assert problems(text % "connections: 16") == [
        "accounts[0].incoming.imap.connections: must not be more than 15: Gmail allows no more"
    ]
    account = load(text % "idle: 9m, connections: 5, daily: 1GiB").accounts[0]
    assert account.incoming is not None
    assert (account.incoming.imap.connections, account.incoming.imap.daily) == (5, 1024**3)


def test_roles_are_named_where_the_server_does_not_say_them(load: Load, problems: Problems) -> None:
    text = "accounts: [{id: a, address: a@b.c, password: p, incoming: {imap: {host: h}, roles: {%s}}}]"
    account = load(text % "trash: Papierkorb, sent: Gesendete Elemente").accounts[0]
    assert account.incoming is not None
    assert account.incoming.roles == {"trash": "Papierkorb", "sent": "Gesendete Elemente"}
    assert len(problems(text % "bin: Papierkorb")) == 1


def test_gmail_is_where_gmail_is(load: Load) -> None:
    account = load("accounts: [{id: a, address: a@gmail.com, password: p, preset: gmail}]").accounts[0]
    assert account.incoming is not None
    assert account.outgoing is not None
    assert (account.incoming.imap.host, account.incoming.imap.port) == ("imap.gmail.com", 993)
    assert (account.outgoing.smtp.host, account.outgoing.smtp.port) == ("smtp.gmail.com", 465)


@pytest.mark.parametrize(
    ("given", "rule", "raw"),
    [
        ("initial: new", After(), Raw.PROBLEM),
        ("after: seen", After(AfterKind.SEEN), Raw.PROBLEM),
        ("after: {move: 'a * b'}", After(AfterKind.MOVE, "a * b"), Raw.PROBLEM),
        ("after: delete", After(AfterKind.DELETE), Raw.ALWAYS),
        ("after: delete, raw: never", After(AfterKind.DELETE), Raw.NEVER),
    ],
)
def test_what_is_deleted_is_kept_raw_unless_it_is_said(load: Load, given: str, rule: After, raw: Raw) -> None:
    account = load(f"accounts: [{{id: a, address: a@b.example, password: p, preset: gmx, incoming: {{{given}}}}}]")
    incoming = account.accounts[0].incoming
    assert incoming is not None
    assert (incoming.after, incoming.raw) == (rule, raw)
    assert incoming.after_delay == timedelta(minutes=5)


def test_any_key_overrides_a_preset_and_null_turns_a_direction_off(load: Load) -> None:
    account = load("""
        accounts:
          - id: a
            address: a@example.com
            password: p
            preset: gmail
            incoming: {imap: {port: 1993}, initial: all}
            outgoing: null
        """).accounts[0]
    assert account.outgoing is None
    assert account.incoming is not None
    assert (account.incoming.imap.host, account.incoming.imap.port) == ("imap.gmail.com", 1993)
    assert account.incoming.initial == "all"


def test_a_relay_may_want_no_login(load: Load) -> None:
    account = load("""
        accounts: [{id: a, address: a@example.com, outgoing: {smtp: {host: relay, login: false}}}]
        """).accounts[0]
    assert account.incoming is None
    assert account.outgoing is not None
    assert not account.outgoing.password


def test_since_may_be_a_moment_and_is_utc(load: Load) -> None:
    account = load("""
        accounts:
          - id: a
            address: a@example.com
            password: p
            preset: gmx
            incoming: {initial: {since: 2026-01-01T00:00:00+02:00}}
        """).accounts[0]
    assert account.incoming is not None
    assert account.incoming.initial == datetime(2025, 12, 31, 22, tzinfo=UTC)


def test_the_environment_wins_over_the_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILBUS_NATS__SERVERS", "nats://a:4222, nats://b:4222")
    monkeypatch.setenv("MAILBUS_NATS__REPLICAS", "3")
    monkeypatch.setenv("MAILBUS_STREAMS__IN__MAX_AGE", "3d")
    monkeypatch.setenv("MAILBUS_HTTP__LISTEN", "0.0.0.0:80")
    monkeypatch.setenv("MAILBUS_INSTANCE", "pod-7")
    settings = load("{nats: {servers: [nats://file:4222], prefix: kept}, instance: file, streams: {in: {max_age: 1d}}}")
    assert settings.nats.servers == ["nats://a:4222", "nats://b:4222"]
    assert (settings.nats.replicas, settings.nats.prefix) == (3, "kept")
    assert settings.streams.in_.max_age == timedelta(days=3)
    assert settings.http.listen == ("0.0.0.0", 80)
    assert settings.instance == "pod-7"


def test_the_word_null_in_the_environment_is_null_where_a_key_may_be(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STREAMS__IN__MAX_AGE", "NATS__USER", "NETWORK__ALLOW", "INSTANCE"):
        monkeypatch.setenv(f"MAILBUS_{name}", "null")
    settings = load("{streams: {in: {max_age: 1d}, status: {max_age: 2d}}, nats: {user: u}}")
    assert (settings.streams.in_.max_age, settings.nats.user, settings.network.allow) == (None, None, None)
    assert settings.streams.status.max_age == timedelta(days=2)
    assert settings.instance == "null"


def test_the_environment_can_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "geheim")
    monkeypatch.setenv("MAILBUS_NATS__SERVERS", '["tls://nats.example.com"]')
    accounts = [{"id": "a", "address": "a@example.com", "preset": "gmail", "password": {"env": "PW"}}]
    monkeypatch.setenv("MAILBUS_ACCOUNTS", json.dumps(accounts))
    settings = load_settings(None)
    assert settings.nats.servers == ["tls://nats.example.com"]
    assert settings.accounts[0].password.reveal() == "geheim"


def test_variables_that_others_set_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAILBUS_STOP_AT", "MAILBUS_STEPS_LOG", "MAILBUS_PORT", "MAILBUS_SERVICE_HOST", "MAILBUS_HTTP_PORT"):
        monkeypatch.setenv(name, "1")
    load_settings(None)


def test_a_secret_file_lies_beside_the_settings_and_loses_its_last_line_end_only(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b" secret \r\n")
    account = load("accounts: [{id: a, address: a@b.example, preset: gmx, password: {file: pw}}]").accounts[0]
    assert account.password.reveal() == " secret "


def test_further_relays_have_credentials_of_their_own(load: Load) -> None:
    settings = load("""
        accounts:
          - id: a
            address: a@example.com
            outgoing:
              password: first
              smtp: {host: one.example}
              relays: [{host: two.example, username: u, password: second}, {host: three.example, login: false}]
        """)
    outgoing = settings.accounts[0].outgoing
    assert outgoing is not None
    assert [(one.host, one.port, one.password.reveal()) for one in outgoing.relays] == [
        ("two.example", 465, "second"), ("three.example", 465, ""),
    ]  # fmt: skip


def test_limits_by_domain_stand_as_the_wire_has_it(load: Load) -> None:
    settings = load(
        """
        accounts:
        - id: a
          address: a@example.com
          outgoing:
            smtp: {host: h, login: false}
            domains: {Bücher.Example: {rate: 30/1m}, "*": {connections: 2}}
        """
    )
    outgoing = settings.accounts[0].outgoing
    assert outgoing is not None
    assert sorted(outgoing.domains) == ["*", "xn--bcher-kva.example"]
    assert outgoing.domains["*"].connections == 2


@pytest.mark.parametrize("wrong", ['{"a b": {rate: 1/1m}}', "{x.example: {rate: 5}}", "{x.example: {connections: 0}}"])
def test_a_limit_that_is_none_is_named(problems: Problems, wrong: str) -> None:
    found = problems(
        f"""
        accounts: [{{id: a, address: a@example.com, outgoing: {{smtp: {{host: h, login: false}}, domains: {wrong}}}}}]
        """
    )
    assert all("outgoing.domains" in one for one in found)
    assert found


@pytest.mark.parametrize(("rate", "seconds"), [("30/1m", 2.0), ("1/1h", 3600.0), ("10000/1d", 8.64)])
def test_a_rate_is_so_many_mails_in_a_time(load: Load, rate: str, seconds: float) -> None:
    outgoing = (
        load(f"""
        accounts: [{{id: a, address: a@example.com, outgoing: {{smtp: {{host: h, login: false}}, rate: {rate}}}}}]
        """)
        .accounts[0]
        .outgoing
    )
    assert outgoing is not None
    assert outgoing.rate is not None
    assert outgoing.rate.total_seconds() == seconds
