"""oauth2 as an operator writes it: what it means, what is wrong with it, and that nothing of it is shown."""

import json
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.clock import SystemClock
from service.errors import Permanent
from service.oauth import Grant
from service.reach import ANYWHERE
from service.settings import PRESETS, SettingsInvalid, login_remedy
from service.tokens import account_tokens, oauth_options
from tests.servers.oauth import OAuthServer
from tests.settings.conftest import Load, Problems

ACCOUNT = "id: a, address: a@example.com"
REFRESH = "grant: refresh_token, client_id: c, client_secret: s, refresh_token: r"


def account(more: str) -> str:
    return f"accounts: [{{{ACCOUNT}, {more}}}]"


def test_with_a_preset_only_what_is_ones_own_is_written(load: Load) -> None:
    found = load(account(f"preset: gmail, oauth2: {{{REFRESH}}}")).accounts[0]
    assert found.incoming is not None
    assert found.outgoing is not None
    assert found.incoming.oauth2 == found.outgoing.oauth2 == found.oauth2
    assert found.oauth2 is not None
    assert found.oauth2.token_url == "https://oauth2.googleapis.com/token"
    assert found.oauth2.scope == "https://mail.google.com/"
    assert not found.incoming.password


def test_a_direction_may_have_its_own(load: Load) -> None:
    found = load(account(f"preset: gmail, password: p, incoming: {{oauth2: {{{REFRESH}}}}}")).accounts[0]
    assert found.incoming is not None
    assert found.outgoing is not None
    assert found.incoming.oauth2 is not None
    assert found.incoming.oauth2.token_url == "https://oauth2.googleapis.com/token"
    assert (found.incoming.password.reveal(), found.outgoing.password.reveal()) == ("", "p")
    assert found.outgoing.oauth2 is None


def test_a_key_of_settings_goes_over_the_presets(load: Load) -> None:
    url = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
    more = f"grant: client_credentials, client_id: c, client_secret: s, token_url: '{url}'"
    found = load(account(f"preset: microsoft365, oauth2: {{{more}}}")).accounts[0]
    assert found.oauth2 is not None
    assert (found.oauth2.token_url, found.oauth2.scope) == (url, "https://outlook.office365.com/.default")


def test_null_is_none(load: Load) -> None:
    assert load(account("preset: gmail, password: p, oauth2: null")).accounts[0].oauth2 is None


def test_the_file_of_a_refresh_token_is_remembered(load: Load, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("refresh\n")
    more = "grant: refresh_token, client_id: c, refresh_token: {file: r}"
    found = load(account(f"preset: gmail, oauth2: {{{more}}}")).accounts[0]
    assert found.oauth2 is not None
    options = oauth_options(found, found.oauth2, "a@example.com", ANYWHERE)
    assert (options.refresh_token, options.refresh_file) == ("refresh", tmp_path / "r")
    assert options.grant is Grant.REFRESH_TOKEN
    assert "https://mail.google.com/" in options.remedy


def test_both_directions_share_one_source_where_they_log_in_alike(load: Load) -> None:
    one = load(account(f"preset: gmail, oauth2: {{{REFRESH}}}")).accounts[0]
    tokens = account_tokens(one, SystemClock(), ANYWHERE)
    assert tokens.incoming is tokens.outgoing
    assert tokens.parts().keys() == {"oauth2"}
    two = load(account(f"preset: gmail, oauth2: {{{REFRESH}}}, outgoing: {{username: b@example.com}}")).accounts[0]
    assert account_tokens(two, SystemClock(), ANYWHERE).parts().keys() == {"oauth2-incoming", "oauth2-outgoing"}
    none = load(account("preset: gmail, password: p")).accounts[0]
    assert account_tokens(none, SystemClock(), ANYWHERE).parts() == {}


@pytest.mark.parametrize(
    ("oauth2", "found"),
    [
        ("{}", [".grant: required"]),
        ("{grant: password}", [".grant: write refresh_token, client_credentials or jwt_bearer"]),
        ("{grant: refresh_token}", [".client_id: required with grant: refresh_token",
                                    ".refresh_token: required with grant: refresh_token"]),
        ("{grant: client_credentials, client_id: c}", [
            ".token_url: required with grant: client_credentials",
            ".client_secret: required with grant: client_credentials",
            ".scope: required with grant: client_credentials"]),
        ("{grant: jwt_bearer, scope: s}", [".key: required with grant: jwt_bearer"]),
        (f"{{{REFRESH}, key: mailbus.yaml}}", [".key: means nothing with grant: refresh_token"]),
        (f"{{{REFRESH}, tokenurl: x}}", [".tokenurl: unknown key: did you mean token_url?"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_key(problems: Problems, oauth2: str, found: list[str]) -> None:
    assert problems(account(f"preset: gmail, oauth2: {oauth2}")) == [f"accounts[0].oauth2{one}" for one in found]


@pytest.mark.parametrize(
    "url",
    ["http://example.com/token", "http://127.0.0.1.example.com/",
     "example.com", "https://u:p@example.com/", "https://", "https://x:99999/", "7",
     "https://example.com/#x"],
)  # fmt: skip
def test_a_token_url_that_is_none_or_unsafe_says_what_would_do(problems: Problems, url: str) -> None:
    (found,) = problems(account(f"preset: gmail, oauth2: {{{REFRESH}, token_url: '{url}'}}"))
    assert found.startswith("accounts[0].oauth2.token_url: write the token endpoint's address, such as https://")


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "[::1]:8123"])
def test_a_token_endpoint_on_this_machine_may_do_without_tls(load: Load, host: str) -> None:
    url = f"http://{host}/token"
    oauth2 = load(account(f"preset: gmail, oauth2: {{{REFRESH}, token_url: '{url}'}}")).accounts[0].oauth2
    assert oauth2 is not None
    assert oauth2.token_url == url


def test_password_and_oauth2_in_one_place_are_one_too_many(problems: Problems) -> None:
    assert problems(account(f"preset: gmail, password: p, oauth2: {{{REFRESH}}}")) == [
        "accounts[0]: keep one of password, oauth2: one is enough to log in"
    ]
    assert problems(account(f"preset: gmail, outgoing: {{password: p, oauth2: {{{REFRESH}}}}}, password: q")) == [
        "accounts[0].outgoing: keep one of password, oauth2: one is enough to log in"
    ]


@pytest.mark.fault("G02")
def test_a_token_never_goes_in_the_clear(problems: Problems) -> None:
    found = problems(
        account(
            f"oauth2: {{{REFRESH}, token_url: 'https://x.example/t'}}, incoming: {{imap: {{host: h, security: none}}}},"
            " outgoing: {smtp: {host: h, security: none}}"
        )
    )
    assert found == [
        f"accounts[0].{key}.security: none would send tokens in the clear: oauth2 wants tls or starttls"
        for key in ("incoming.imap", "outgoing.smtp")
    ]


def test_a_missing_password_says_what_the_provider_wants(problems: Problems) -> None:
    found = problems(account("preset: gmail"))
    assert len(found) == 2
    assert all("https://myaccount.google.com/apppasswords" in one for one in found)


@pytest.mark.fault("G04")
@pytest.mark.parametrize(
    "oauth2",
    [
        "{grant: refresh_token, client_id: [marker], client_secret: {literal: marker}, refresh_token: [marker]}",
        "{grant: marker}",
        "marker",
        "{grant: refresh_token, token_url: 'http://marker'}",
        "{refresh_token:marker}",
    ],
)
def test_no_error_shows_anything_of_it(load: Load, oauth2: str) -> None:
    with pytest.raises(SettingsInvalid) as failed:
        load(account(f"preset: gmail, oauth2: {oauth2}"))
    shown = "".join(traceback.format_exception(failed.value)) + str(failed.value.problems)
    assert "marker" not in shown


@pytest.mark.fault("G04")
def test_settings_show_no_secret_of_it(load: Load) -> None:
    more = "grant: refresh_token, client_id: c, client_secret: marker-1, refresh_token: marker-2"
    settings = load(account(f"preset: gmail, oauth2: {{{more}}}"))
    assert "marker" not in repr(settings) + settings.model_dump_json() + str(settings.model_dump())


def test_a_service_account_without_an_endpoint_is_said(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("{}")
    more = "oauth2: {grant: jwt_bearer, key: key, scope: s}, incoming: {imap: {host: h}}"
    found = load(account(more)).accounts[0]
    with pytest.raises(Permanent, match="no key"):
        account_tokens(found, SystemClock(), ANYWHERE)


async def test_an_endpoint_on_this_machine_is_asked_without_tls(load: Load, oauth: OAuthServer) -> None:
    more = f"grant: refresh_token, client_id: {oauth.client_id}, client_secret: {oauth.client_secret}"
    more += f", refresh_token: {oauth.refresh_token}, token_url: 'http://127.0.0.1:{oauth.plain_port}/token'"
    found = load(account(f"oauth2: {{{more}}}, incoming: {{imap: {{host: h}}}}")).accounts[0]
    tokens = account_tokens(found, SystemClock(), ANYWHERE).incoming
    assert tokens is not None
    assert await tokens.get() in oauth.tokens


def test_a_key_that_names_an_endpoint_without_tls_is_not_asked(load: Load, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    said = {"private_key": key.decode(), "client_email": "a@b.example", "token_uri": "http://oauth.example.com/token"}
    (tmp_path / "key").write_text(json.dumps(said))
    more = "oauth2: {grant: jwt_bearer, key: key, scope: s}, incoming: {imap: {host: h}}"
    found = load(account(more)).accounts[0]
    with pytest.raises(Permanent, match="where tokens are to be had"):
        account_tokens(found, SystemClock(), ANYWHERE)


def test_163_may_be_written_as_a_number(load: Load) -> None:
    found = load(account("preset: 163, password: p")).accounts[0]
    assert found.preset == "163"
    assert found.incoming is not None
    assert found.incoming.imap.host == "imap.163.com"


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_says_what_it_wants(name: str) -> None:
    preset = PRESETS[name]
    assert preset.wants in login_remedy(name, None)
    for grant, consent in preset.oauth2.items():
        assert Grant(grant)
        assert set(consent.fills) <= {"token_url", "scope"}
        assert consent.wants in login_remedy(name, grant)
    assert preset.domains or preset.mx or not preset.fills


def test_no_two_presets_claim_one_domain() -> None:
    for claimed in (
        [domain for preset in PRESETS.values() for domain in preset.domains],
        [host for preset in PRESETS.values() for host in preset.mx],
    ):
        assert len(claimed) == len(set(claimed))
