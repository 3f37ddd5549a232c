"""OAuth 2 instead of a password, as settings say it, and what is wrong between its keys. A part of an account."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

from service.oauth import Grant, is_endpoint
from service.settings.files import Named
from service.settings.part import Part
from service.settings.secret import Secret
from service.settings.values import Text, some_text, unshown, wrong

# By grant: what it cannot do without, and what it may have beside that.
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    Grant.REFRESH_TOKEN: ("token_url", "client_id", "refresh_token"),
    Grant.CLIENT_CREDENTIALS: ("token_url", "client_id", "client_secret", "scope"),
    Grant.JWT_BEARER: ("key", "scope"),
}
ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    Grant.REFRESH_TOKEN: ("client_secret", "scope"),
    Grant.CLIENT_CREDENTIALS: (),
    Grant.JWT_BEARER: ("token_url", "client_id"),
}
EVERY_GRANT: Final = frozenset({"grant", "ca"})


def _token_url(value: Any) -> str:
    url = some_text(value)
    if not is_endpoint(url):
        raise wrong("write the token endpoint's address, such as https://login.example.com/oauth2/token")
    return url


TokenUrl = Annotated[
    str, BeforeValidator(unshown(_token_url)), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]


class OAuth2Settings(Part):
    """Where access tokens come from."""

    grant: Grant = Field(description="`refresh_token`, `client_credentials`, or `jwt_bearer` (a service account)")
    token_url: TokenUrl = Field(
        default="",
        description="The token endpoint, https (http on this machine alone); a preset or Google's key has it",
    )
    client_id: Text = Field(default="", description="The application's id; for `jwt_bearer` Google's key has it")
    client_secret: Secret = Field(default=Secret(), description="The application's secret, where it has one")
    refresh_token: Secret = Field(
        default=Secret(), description="Best as `{file: PATH}`: where the provider gives a new one, it is kept there"
    )
    key: Named | None = Field(default=None, description="For `jwt_bearer`: Google's JSON file, or an RSA key in PEM")
    scope: Text = Field(default="", description="What the token may do; a preset has it")
    ca: Named | None = Field(default=None, description="File with the authorities to trust; default: the system's")


def oauth2_problems(oauth2: Any) -> Iterator[str]:
    """What is wrong between the keys of one `oauth2`, preset filled in; a malformed one says it itself."""
    grant = oauth2.get("grant") if isinstance(oauth2, dict) else None
    if not isinstance(grant, str) or grant not in NEEDED:
        return
    yield from (f".{key}: required with grant: {grant}" for key in NEEDED[grant] if oauth2.get(key) is None)
    known = {*NEEDED[grant], *ALLOWED[grant], *EVERY_GRANT}
    for key in OAuth2Settings.model_fields:
        if key not in known and oauth2.get(key) is not None:
            yield f".{key}: means nothing with grant: {grant}"
