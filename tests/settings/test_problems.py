"""What is wrong with settings, and what is said of it."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from service.contract import ROLES
from service.errors import Permanent
from service.settings import Settings, SettingsInvalid, load_account, load_settings
from service.settings.model import MAKE_KEY
from tests.settings.conftest import Load, Problems

LISTEN = "write HOST:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080; port 0 takes any free one"
TEXT = "write text; put what looks like a number, a date or yes and no in quotes"
HOST = "write a host name or an IP address alone: no protocol before it, no port behind it"
PASSWORD = "needs a password, here or in the account: write password: {env: NAME}"
TWO = f"accounts[0].incoming: {PASSWORD}\naccounts[0].outgoing: {PASSWORD}, or smtp: {{login: false}}"
PRESETS = (
    "163, courier, cyrus, dovecot, exchange, fastmail, gmail, gmx, google-workspace, icloud, microsoft365, outlook, qq,"
    " yahoo, zoho, zoho-pro"
)
ACCOUNT = "id: a, address: a@example.com, password: p"


def account(more: str, base: str = ACCOUNT) -> str:
    return f"accounts: [{{{base}, {more}}}]"


@pytest.mark.fault("F11")
def test_all_that_is_wrong_is_listed_each_with_its_key_and_what_would_do(problems: Problems) -> None:
    found = problems("""
        nats: {servers: [http://x], replicas: 9}
        http: {listen: 8080}
        limits: {inline: 4}
        lgo: {level: debug}
        accounts:
          - id: a
            address: nobody
            password: {env: NOT_THERE}
            incoming: {imap: {host: h, pot: 3, security: ssl}}
          - {id: a, address: b@example.com, preset: gmale}
          - {id: "b c", address: c@example.com, password: p, preset: gmx, outgoing: {uncertain: maybe}}
        """)
    assert found == [
        "nats.servers: each must be a URL such as nats://127.0.0.1:4222 or tls://nats.example.com:4222",
        "nats.replicas: must be at most 5 (got '9')",
        f"http.listen: {LISTEN} (got '8080')",
        "limits.inline: write a whole number and its unit, B KiB MiB or GiB, such as 256KiB (got '4')",
        "accounts[0].address: write one mail address alone, such as support@example.com",
        "accounts[0].password: the environment variable NOT_THERE is not set",
        "accounts[0].incoming.imap.security: write tls, starttls or none (got 'ssl')",
        "accounts[0].incoming.imap.pot: unknown key: did you mean port?",
        f"accounts[1].preset: there is {PRESETS} (got 'gmale')",
        "accounts[2].id: write 1 to 64 letters, digits, - or _ (got 'b c')",
        "accounts[2].outgoing.uncertain: write retry or hold (got 'maybe')",
        "lgo: unknown key: did you mean log?",
        "accounts[1].id: accounts[0] has the same id, 'a'",
        "accounts[1]: needs incoming, outgoing, or a preset that has them",
    ]


@pytest.mark.fault("F11")
def test_the_error_is_permanent_and_names_the_file(load: Load, tmp_path: Path) -> None:
    with pytest.raises(Permanent) as failed:
        load("{a: 1, b: 2}")
    assert isinstance(failed.value, SettingsInvalid)
    assert failed.value.where == str(tmp_path / "mailbus.yaml")
    assert failed.value.what == "settings: 2 problems"
    assert all(problem in str(failed.value) for problem in failed.value.problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{nats: {sever: [x]}}", "nats.sever: unknown key: did you mean servers?"),
        ("{stream: {}}", "stream: unknown key: did you mean streams?"),
        ("{streams: {inn: {}}}", "streams.inn: unknown key: did you mean in?"),
        ("{streams: {in_: {}}}", "streams.in_: unknown key: did you mean in?"),
        (
            "{zzz: 1}",
            "zzz: unknown key: there is nats, http, network, instance, fleet, seal, log, streams, limits, accounts",
        ),
        (
            account("preset: gmx, incoming: {imap: {hosts: h}}"),
            "accounts[0].incoming.imap.hosts: unknown key: did you mean host?",
        ),
        (account("preset: gmx, Username: x"), "accounts[0].Username: unknown key: did you mean username?"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(problems: Problems, text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_an_unknown_variable_names_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILBUS_NTAS__SERVERS", "x")
    monkeypatch.setenv("MAILBUS_NATS__SERVER", "x")
    with pytest.raises(SettingsInvalid) as failed:
        load_settings(None)
    assert failed.value.problems == [
        "MAILBUS_NTAS__SERVERS: unknown key: did you mean MAILBUS_NATS?",
        "nats.server (MAILBUS_NATS__SERVER): unknown key: did you mean servers?",
    ]


def test_what_a_variable_says_wrong_names_the_variable(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILBUS_NATS", '{"replicas": 9, "servers": []}')
    monkeypatch.setenv("mailbus_nats__prefix", "a b")
    monkeypatch.setenv("MAILBUS_ACCOUNTS__0__PASSWORD", "p")
    with pytest.raises(SettingsInvalid) as failed:
        load("{nats: {usr: a}, accounts: [{id: a}]}")
    assert failed.value.problems == [
        "nats.servers (MAILBUS_NATS): write a list of URLs, such as [nats://127.0.0.1:4222]",
        "nats.prefix (mailbus_nats__prefix): write 1 to 32 letters, digits, - or _ (got 'a b')",
        "nats.replicas (MAILBUS_NATS): must be at most 5 (got '9')",
        "nats.usr: unknown key: did you mean user?",
        "accounts (MAILBUS_ACCOUNTS__0__PASSWORD): write a list (in the environment: as JSON)",
    ]


@pytest.mark.fault("F11")
def test_what_does_not_fit_together_is_said_beside_what_is_wrong_elsewhere(problems: Problems) -> None:
    text = """
        lgo: {}
        http: {listen: 1}
        limits: {memory: 1MiB}
        nats: {user: u}
        streams: {in: {max_age: 1h}}
        accounts:
          - {id: "b c", address: b@example.com, password: p, preset: gmx, outgoing: {retry: {first: 2h, max: 1h}}}
          - id: a
            address: a@example.com
            password: p
            preset: gmx
            incoming: {after: delete, after_delay: 2h}
            outgoing: {retry: {first: 2h, max: 1h}}
        """
    assert problems(text) == [
        f"http.listen: {LISTEN} (got '1')",
        "accounts[0].id: write 1 to 64 letters, digits, - or _ (got 'b c')",
        "lgo: unknown key: did you mean log?",
        "limits.message: must not be more than limits.memory (1MiB)",
        "nats.password: required beside nats.user",
        "accounts[1].outgoing.retry.first: must not be more than retry.max",
        "accounts[1].incoming.after_delay: must be less than streams.in.max_age (1h): mail would stay",
    ]


def test_what_is_wrong_itself_is_measured_by_nothing_else(problems: Problems) -> None:
    """Beside the default it might be wrong, and beside what was meant right."""
    found = problems(f"""
        streams: {{in: {{max_age: 90}}}}
        {account("preset: gmx, incoming: {after: delete, after_delay: 40d}")}
        """)
    assert found == [
        "streams.in.max_age: write a whole number and its unit, ms s m h or d, such as 90s or 30d (got '90')"
    ]


def test_dates_and_numbers_that_do_not_exist_are_said_by_their_key(problems: Problems) -> None:
    accounts = "accounts: [{id: a, address: a@example.com, password: p, preset: gmx, incoming: {initial: {since: %s}}}]"
    for date in ("2026-13-01", "2026-02-30", "2026-01-01T25:00:00Z", "!!timestamp soon"):
        assert problems(f"{accounts % date}\nlgo: {{}}\nnats: {{replicas: 0x_}}\n") == [
            "nats.replicas: write a number (got '0x_')",
            "accounts[0].incoming.initial: write new, all, or {since: 2026-01-01}",
            "lgo: unknown key: did you mean log?",
        ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{nats: {user: u}}", "nats.password: required beside nats.user"),
        ("{nats: {password: u}}", "nats.user: required beside nats.password"),
        ("{nats: {token: t, nkey_seed: s}}", "nats: keep one of token, nkey_seed: one is enough to log in"),
        (
            "{nats: {tls: {ca: no.pem}}}",
            "nats.tls.ca: the file that it names beside the settings file cannot be read: No such file or directory",
        ),
        (
            "{nats: {creds: /not/there.creds}}",
            "nats.creds: the file /not/there.creds cannot be read: No such file or directory",
        ),
        ("{nats: {servers: []}}", "nats.servers: write a list of URLs, such as [nats://127.0.0.1:4222]"),
        ("{nats: {prefix: a.b}}", "nats.prefix: write 1 to 32 letters, digits, - or _ (got 'a.b')"),
        ("{nats: {replicas: true}}", "nats.replicas: write a number (got true)"),
        ("{nats: {replicas: many}}", "nats.replicas: write a number (got 'many')"),
        ("{nats: {replicas: 0}}", "nats.replicas: must be at least 1 (got '0')"),
        ("{nats: 7}", "nats: write keys and values below it"),
        ("{accounts: {a: 1}}", "accounts: write a list (in the environment: as JSON)"),
        ("{accounts: [x]}", "accounts[0]: write keys and values below it"),
        ("{limits: {inline: 1MiB, message: 1KiB}}", "limits.inline: must not be more than limits.message (1KiB)"),
        ("{limits: {memory: 1MiB}}", "limits.message: must not be more than limits.memory (1MiB)"),
        ("{http: {listen: '127.0.0.1:70000'}}", f"http.listen: {LISTEN} (got '127.0.0.1:70000')"),
        ("{instance: a/b}", "instance: write 1 to 64 letters, digits, . - or _ (got 'a/b')"),
        ("{instance: 7}", f"instance: {TEXT} (got '7')"),
        ("{log: {level: loud}}", "log.level: write debug, info, warning or error (got 'loud')"),
        (
            "{streams: {in: {max_age: 30}}}",
            "streams.in.max_age: write a whole number and its unit, ms s m h or d, such as 90s or 30d (got '30')",
        ),
        (account("incoming: {imap: {host: h}}, outgoing: {smtp: {host: h}}", "id: a, address: a@b.example"), TWO),
    ],
)
def test_a_wrong_value_says_what_would_do(problems: Problems, text: str, problem: str) -> None:
    assert problems(text) == problem.split("\n")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("incoming: {}", ".incoming.imap: required, or pop3"),
        ("incoming: {imap: {}}", ".incoming.imap.host: required"),
        ("outgoing: null", ": needs incoming, outgoing, or a preset that has them"),
        (
            "preset: gmx, incoming: {mailboxes: [INBOX, inbox]}",
            ".incoming.mailboxes: says the same mailbox, pattern or role twice",
        ),
        (
            "preset: gmx, incoming: {mailboxes: []}",
            ".incoming.mailboxes: write a list of names, patterns or roles, such as [INBOX]",
        ),
        (
            r"preset: gmx, incoming: {exclude: [\Spam]}",
            ".incoming.exclude: no such role: there is "
            + ", ".join(rf"\{role.capitalize()}" for role in ROLES)
            + r'; write {name: "\Spam"} for a mailbox that is called so',
        ),
        (
            "preset: gmx, incoming: {imap: {connections: 1}}",
            ".incoming.imap.connections: must be at least 2 (got '1')",
        ),
        (
            "preset: gmx, incoming: {initial: yesterday}",
            ".incoming.initial: write new, all, or {since: 2026-01-01} (got 'yesterday')",
        ),
        ("preset: gmx, incoming: {imap: {idle: 30m}}", ".incoming.imap.idle: must be between 1s and 29m (got '30m')"),
        ("preset: gmx, incoming: {imap: {port: 0}}", ".incoming.imap.port: must be at least 1 (got '0')"),
        ("preset: gmx, incoming: {imap: {host: 'imaps://h'}}", f".incoming.imap.host: {HOST} (got 'imaps://h')"),
        ("preset: gmx, incoming: {imap: {host: 'h:993'}}", f".incoming.imap.host: {HOST} (got 'h:993')"),
        (
            "preset: gmx, incoming: {after: archive}",
            ".incoming.after: write nothing, seen, delete, {move: MAILBOX}, or {keep_days: N} (got 'archive')",
        ),
        ("preset: gmx, incoming: {after: {move: ''}}", ".incoming.after: must not be empty"),
        (
            "preset: gmx, incoming: {after: {copy: x}}",
            ".incoming.after: write nothing, seen, delete, {move: MAILBOX}, or {keep_days: N}",
        ),
        (
            "preset: gmx, incoming: {after: delete, after_delay: 30d}",
            ".incoming.after_delay: must be less than streams.in.max_age (30d): mail would stay",
        ),
        (
            "preset: gmx, incoming: {extras: [replies]}",
            ".incoming.extras[0]: write text, reply, html or language (got 'replies')",
        ),
        (
            'preset: gmx, outgoing: {verp: "much-too-long+{}@example.com"}',
            (
                ".outgoing.verp: write an address with {} in it, after at most 9 characters, such as "
                "bounces+{}@example.com"
            ),
        ),
        ("preset: gmx, incoming: {raw: often}", ".incoming.raw: write problem, always or never (got 'often')"),
        (
            "preset: gmx, outgoing: {retry: {first: 2h, max: 1h}}",
            ".outgoing.retry.first: must not be more than retry.max",
        ),
        (
            "preset: gmx, outgoing: {retry: {factor: .nan}}",
            ".outgoing.retry.factor: must be at least 1 (got 'nan')",
        ),
        (
            "preset: gmx, outgoing: {redirect: 'a@b, c@d'}",
            ".outgoing.redirect: write one mail address alone, such as support@example.com",
        ),
    ],
)
def test_a_wrong_value_of_an_account_says_what_would_do(problems: Problems, more: str, problem: str) -> None:
    assert problems(account(more)) == [f"accounts[0]{problem}"]


TOGETHER = [
    ("preset: gmx, outgoing: {retry: {first: 2h, max: 1h}}", "outgoing.retry.first: "),
    ("preset: gmx, incoming: null, outgoing: {sent: always}", "outgoing.sent: always needs incoming.imap"),
    ("preset: gmail, incoming: {imap: {idle: 29m}}", "incoming.imap.idle: must be less than "),
    ("preset: gmx, incoming: {after: delete, after_delay: 30d}", "incoming.after_delay: must be less than "),
    ("preset: gmx, incoming: {after: {keep_days: 3}}", "incoming.after: keep_days is for pop3"),
    ("preset: gmx, incoming: {password: p, oauth2: {grant: jwt_bearer}}", "incoming: keep one of password, oauth2"),
    ("incoming: {}", "incoming.imap: required, or pop3"),
]


@pytest.mark.parametrize(("more", "problem"), TOGETHER)
def test_an_account_over_the_bus_is_checked_as_one_of_the_file(
    problems: Problems, more: str, problem: str, tmp_path: Path
) -> None:
    of_file = problems(account(more))
    assert any(one.startswith(f"accounts[0].{problem}") for one in of_file)
    with pytest.raises(SettingsInvalid) as failed:
        load_account(yaml.safe_load(f"{{{ACCOUNT}, {more}}}"), Settings(), tmp_path)
    assert failed.value.problems == [one.removeprefix("accounts[0].") for one in of_file]


@pytest.mark.parametrize("key", ["no key", "c2hvcnQ=", "x" * 44, "ключ"])
def test_a_key_that_seals_nothing_is_said_with_all_else_that_is_wrong(problems: Problems, key: str) -> None:
    good = Fernet.generate_key().decode()
    found = problems(f"{{seal: {{keys: [{good}, '{key}']}}, instance: 7}}")
    assert found == [f"instance: {TEXT} (got '7')", f"seal.keys[1]: no Fernet key; {MAKE_KEY} makes one"]


@pytest.mark.fault("G07")
@pytest.mark.parametrize("end", [r"\r\n", r"\n", r"\r", r"\0"])
@pytest.mark.parametrize("key", ["username", "password", "address", "id", "redirect", "host", "mailbox", "after"])
def test_a_line_end_or_nul_is_refused_wherever_it_would_become_a_command(
    problems: Problems, key: str, end: str
) -> None:
    value = f'"a{end}b@example.com"'
    more = {
        "redirect": f"preset: gmx, outgoing: {{redirect: {value}}}",
        "host": f"preset: gmx, incoming: {{imap: {{host: {value}}}}}",
        "mailbox": f"preset: gmx, incoming: {{mailboxes: [{{name: {value}}}]}}",
        "after": f"preset: gmx, incoming: {{after: {{move: {value}}}}}",
    }.get(key, "preset: gmx")
    lines = {"id": "a", "address": "a@example.com", "password": "p", "username": "u"}
    if key in lines:
        lines[key] = value
    base = ", ".join(f"{name}: {text}" for name, text in lines.items())
    (found,) = problems(account(more, base))
    assert "line end or a NUL" in found
    assert "\n" not in found
    assert "\r" not in found


def test_an_extra_whose_library_is_not_installed_says_how_to_get_it(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (found,) = problems(account("preset: gmx, incoming: {extras: [language]}"))
    assert found.startswith("accounts[0].incoming.extras: ")
    assert "pip install 'mailbus[language]'" in found


def test_ten_thousand_mistakes_are_not_ten_thousand_lines(problems: Problems) -> None:
    found = problems("accounts:\n" + "".join(f"  - {{id: a{n}, adres: x}}\n" for n in range(1000)))
    assert len(found) == 1001
    assert found[-1].startswith("and ")
